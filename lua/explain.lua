--[[
explain: what each bucket would pay towards a feature, and what limits it. Changes only what is due.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 locks       its open holds by their end
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 carry_debts 1 where overage of free buckets outlives a reset
ARGV 4 entity_id   '' for none
ARGV 5 count       how many feature fields follow
ARGV 6 fields      see include/call.lua; then 1 and the feature with the amount to judge
ANSWER OK now log_gen log_seq allowed reason accepts truncated buckets[] caps[] holds[]
CODES STALE MISSING ENTITY
--]]
--- @include "fence"
--- @include "formats"
--- @include "ids"
local FIELDS_AT, count, entity_id = 6, tonumber(ARGV[5]), ARGV[4]
--- @include "general"
--- @include "judge"
--- @include "most"
--- @include "begin"
local code = read_state(values, now)
if code then return {code} end

local at = features_at + 1
local amount = tonumber(ARGV[at + 2])
local asked, reason = build_walk(at, amount, now), ''
local held, fits, left = judge(asked, amount)
if not left then reason = 'out_of_range'
elseif left > 0 and asked.truncated then reason = 'too_many_entities'
elseif not fits then reason = held and reason_of(at, amount, now, build_walk(at, amount, now), left) or 'not_held' end

-- Each bucket as (feature, number, entity, plan, flags, balance, granted, gives, floor, end, bucket
-- it rolled over from); gives and floor false where they have no end.
local buckets = {}
local function tell(id, t, o, kt, ko, entity, gives, floor)
  local granted = kt[ko + GRANTED]
  if entity ~= '' and has(kt[ko + FLAGS], PER_ENTITY) and has(kt[ko + FLAGS], ROLLOVER) then granted = t[o + SLOT_GRANTED] end
  buckets[#buckets + 1] = {
    id, kt[ko], entity, kt[ko + PLAN], kt[ko + FLAGS], t[o + BALANCE], granted, gives, floor, kt[ko + EXPIRES], kt[ko + PARENT],
  }
end

local standing, accepts, gives = build_walk(at, 0, now), false, {}
if not standing.boolean then accepts, gives = plan_most(at, now) end
for j = 1, standing.m do
  local kt, ko = standing.kt[j], standing.ko[j]
  local entity = standing.e[j] or kt[ko + ENTITY]
  tell(standing.id[standing.s[j]], standing.t[j], standing.o[j], kt, ko, entity, gives[j], floor_of(standing, j))
end
if standing.boolean then
  for _, blob in ipairs({own[1] or false, entity_blobs[1] or false}) do
    for o = 3, blob and blob[2] * ROW_WIDTH or 0, ROW_WIDTH do
      if usable(blob, o, now) then tell(field_ids[1], blob, o, blob, o, blob[o + ENTITY], false, false) end
    end
  end
end

-- What is in force, as (feature, control, limit or false, overage, whether the entity's own, windows,
-- whether the entity's own); windows as (limit, interval, anchor, start, end, used) one after another.
local caps = {}
for i = 1, count do
  local found = caps_of[i]
  if found then
    local _, limit, over = spend_room(i, field_ids[i], own[i], entity_blobs[i], entity_feature, now)
    local windows = {}
    for w = 1, found.windows and #found.windows or 0, 3 do
      local c = counter_at(i, found.windows[w + 1], found.windows[w + 2], own[i], entity_blobs[i], now)
      for _, value in ipairs({found.windows[w], found.windows[w + 1], found.windows[w + 2]}) do windows[#windows + 1] = value end
      for place = 2, 4 do windows[#windows + 1] = counters[i][c + place] end
    end
    caps[#caps + 1] = {
      field_ids[i], found.control, limit or false, over or 0, found.own_spends and 1 or 0, windows, found.own_windows and 1 or 0,
    }
  end
end

local holds = {}
for _, lock_id in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
  holds[#holds + 1], holds[#holds + 2] = lock_id, redis.call('HGET', KEYS[2], lock_field(lock_id))
end
keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
return {'OK', now, header[4], header[5], reason == '' and 1 or 0, reason, accepts, standing.truncated and 1 or 0, buckets, caps, holds}
