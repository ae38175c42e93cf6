--[[
hold: takes units off until a finalize says how many were used, or its time is over.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 locks       its open holds by their end
KEYS 6 holds       the partition's open holds by their end
KEYS 7 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 carry_debts 1 where overage of free buckets outlives a reset
ARGV 4 lock_id     of the hold
ARGV 5 entity_id   '' for none
ARGV 6 info        opaque, for the log
ARGV 7 fingerprint of the decoded call; '' without a key
ARGV 8 ttl_ms      life of an idempotency record
ARGV 9 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 10 bytes_max  bound of this partition's idempotency records
ARGV 11 count      how many feature fields follow
ARGV 12 expires_at when the hold ends by itself; 0: as late as it may
ARGV 13 customer_id its name
ARGV 14 holds_max  how many holds a customer may have open
ARGV 15 hold_max_ms how long a hold may last
ARGV 16 claimed_ms when its lock id was claimed
ARGV 17 fields     see include/call.lua; then 1 and the feature
ANSWER OK id now allowed reason shown required blobs[] entity_blobs[] parts[] expires_at lock_id
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL RANGE SLOTS ARCHIVED LOCKED MANY
--]]
--- @include "fence"
--- @include "formats"
--- @include "ids"
local FIELDS_AT, count, entity_id = 17, tonumber(ARGV[11]), ARGV[5]
--- @include "general"
--- @include "judge"
--- @include "decide"
--- @include "begin_keyed"
if not refusal and redis.call('HEXISTS', KEYS[2], lock_field(ARGV[4])) == 1 then return {'LOCKED'} end
if not refusal and redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[14]) then return {'MANY'} end
local code = read_state(values, now)
if code then return {code} end

local at = features_at + 1
local amount = tonumber(ARGV[at + 2])
if not refusal and amount < 0 and archived_in(at) then refusal = {'ARCHIVED', 1} end
local allowed, reason, chosen, required, w, left
if not refusal then refusal, allowed, reason, chosen, required, w, left = decide(at, amount, now) end
local paid, counted = {}, {}
if not refusal and allowed == 1 then
  apply(w, paid)
  counted = amount > 0 and count_spend(at, w, amount, now) or {}
  if not counted then refusal = {'RANGE', 1} end
end
if refusal or allowed == 0 then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  if refusal then return refusal end
  local customer, entities = shown()
  return {'OK', '', now, allowed, reason, chosen, required, customer, entities, {}, 0, ''}
end

-- The receipt: [2, made at, end, entity, feature, units, (system, n, d) ..., (feature, number, kind,
-- entity, amount, system, pass) ..., what windows counted, when the lock id was claimed].
local applied = amount > 0 and amount or amount + left
local expires_at = now + tonumber(ARGV[15])
if ARGV[12] ~= '0' then expires_at = math.min(expires_at, tonumber(ARGV[12])) end
local systems, held_parts = {}, {}
for s = 1, tonumber(ARGV[at + 3]) do
  for _, value in ipairs({w.id[s] or '', w.n[s] or 1, w.d[s] or 1}) do systems[#systems + 1] = value end
end
for i = 1, #w.parts, 3 do
  local j, take = w.parts[i], w.parts[i + 1]
  local kind = w.x[j] and 2 or (string.sub(names[w.t[j]], 1, 2) == 'x:' and 1 or 0)
  local whose = kind == 2 and w.e[j] or (kind == 1 and entity_id or '')
  local no, held_in, held_at = w.kt[j][w.ko[j]], w.t[j], w.o[j] + HELD
  if kind == 2 then held_in, held_at = w.x[j], find_slot(w.x[j], no) + SLOT_HELD end
  held_in[held_at] = held_in[held_at] + take
  if math.abs(held_in[held_at]) > MAX then keep_resets(KEYS[2], KEYS[3], ARGV[1], now) return {'RANGE', 1} end
  for _, value in ipairs({w.id[w.s[j]], no, kind, whose, take, w.s[j], w.parts[i + 2]}) do held_parts[#held_parts + 1] = value end
  changes[#changes + 1] = {'hd', no, kind == 2 and whose or '', take}
end
local hold = cmsgpack.pack({2, now, expires_at, entity_id, ARGV[at], amount, systems, held_parts, counted, tonumber(ARGV[16])})
changes[#changes + 1] = {'h+', ARGV[4], expires_at, hold}
pack_touched()
local customer, entities = shown()
local reply = {now, allowed, reason, chosen, required, customer, entities, paid, expires_at, ARGV[4]}
local receipt = fingerprint ~= '' and new_receipt(now + ttl_ms, fingerprint, cmsgpack.pack(reply), packed_cid)
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, ARGV[6], {{ARGV[at], amount, applied, paid}},
  receipt or '')
plain_writes[lock_field(ARGV[4])] = cmsgpack.pack({header[4], header[5], hold})
write_changed(KEYS[2])
redis.call('ZADD', KEYS[5], expires_at, ARGV[4])
redis.call('ZADD', KEYS[6], expires_at, hold_member(ARGV[13], ARGV[4]))
if receipt then remember(KEYS[1], ledger, KEYS[#KEYS], receipt, ttl_ms, id) end
return {'OK', id, now, allowed, reason, chosen, required, customer, entities, paid, expires_at, ARGV[4]}
