--[[
refund: gives units of one event back to the very buckets and rollovers that paid, never more than
was taken.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 carry_debts 1 where overage of free buckets outlives a reset
ARGV 4 mode        cap: what is left at most; reject: not at all if more is asked for
ARGV 5 entity_id   of the event, '' for none
ARGV 6 info        opaque, for the log
ARGV 7 fingerprint of the decoded call; '' without a key
ARGV 8 ttl_ms      life of an idempotency record
ARGV 9 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 10 bytes_max  bound of this partition's idempotency records
ARGV 11 count      how many feature fields follow
ARGV 12 gen        the event's log entry
ARGV 13 seq
ARGV 14 made_ms    when it was
ARGV 15 event      msgpack: per feature [units applied, what each bucket paid]
ARGV 16 returned   msgpack: units returned per feature, as SQL has it; '' before it was asked
ARGV 17 returned_from  generation and cursor of that snapshot
ARGV 18 lock_id    of the hold that the event is, '' if it is none
ARGV 19 fields     see include/call.lua; then the number of features and the features; amounts as
                   negative units, 0 for all that is left
ANSWER OK id now applied[] dropped[] held[] blobs[] entity_blobs[] parts[]
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL REFUSED ARCHIVED RETURNED OPEN
--]]
--- @include "fence"
--- @include "formats"
--- @include "ids"
local FIELDS_AT, count, entity_id = 19, tonumber(ARGV[11]), ARGV[5]
--- @include "general"
--- @include "undo"
--- @include "begin_keyed"
if refusal then return refusal end
local open_hold = ARGV[18] ~= '' and redis.call('HGET', KEYS[2], lock_field(ARGV[18]))
if open_hold then
  local hold_gen, hold_seq = unpack(cmsgpack.unpack(open_hold))
  if hold_gen == tonumber(ARGV[12]) and hold_seq == tonumber(ARGV[13]) then return {'OPEN'} end
end

-- What was returned before: kept with the customer; else nothing, if no refund of the event can have
-- left Redis; else what SQL says.
local name = returned_field(ARGV[12], ARGV[13])
local raw = redis.call('HGET', KEYS[2], name)
if not raw then
  local evicted_gen, evicted_seq = mark(KEYS[1], 'eg', 'es')
  if before(evicted_gen, evicted_seq, tonumber(ARGV[12]), tonumber(ARGV[13])) then raw = false
  elseif ARGV[17] ~= '' and asked(KEYS[1], ARGV[1], ARGV[17]) then raw = ARGV[16]
  else return {'RETURNED'} end
end
local returned = raw and raw ~= '' and cmsgpack.unpack(raw) or {}
local code = read_state(values, now)
if code then return {code} end

-- What each bucket paid of a feature's event, in order: how much, of which system (0: its own), and
-- where, as (feature, number, entity of a slot); then the systems' costs.
local function parts_of(feature_id, parts)
  local amounts, of_system, places, n, d, numbers = {}, {}, {}, {}, {}, {}
  local system, of, i = 0, feature_id, 1
  while i <= #parts do
    if parts[i] == -1 then
      of = parts[i + 1]
      if of == feature_id then
        system = 0
      else
        system = numbers[of] or #n + 1
        numbers[of], n[system], d[system] = system, parts[i + 2], parts[i + 3]
      end
      i = i + 4
    else
      local slot = parts[i] == -2
      amounts[#amounts + 1], of_system[#of_system + 1] = slot and -parts[i + 3] or -parts[i + 1], system
      places[#places + 1] = {of, slot and parts[i + 1] or parts[i], slot and parts[i + 2] or ''}
      i = i + (slot and 6 or 2)
    end
  end
  return amounts, of_system, places, n, d
end

local event, mode, made_ms = cmsgpack.unpack(ARGV[15]), ARGV[4], tonumber(ARGV[14])
local features, applied, dropped, held, all_paid, at, any = {}, {}, {}, {}, {}, features_at + 1, false
for f = 1, tonumber(ARGV[features_at]) do
  local taken, paid = event[f][1], {}
  local open = taken - (returned[f] or 0)
  local units = ARGV[at + 2] == '0' and open or -tonumber(ARGV[at + 2])
  if units > open and mode == 'reject' then refusal = {'REFUSED', f} break end
  local asked_for = units
  any = any or units > 0
  units = math.min(units, open)
  local amounts, of_system, places, n, d = parts_of(ARGV[at], event[f][2])
  -- Credits that completed no unit go back with the first refund.
  local now_kept = units > 0 and (returned[f] or 0) == 0 and amounts or walked(amounts, of_system, n, d, open, credits_of)
  local then_kept = walked(amounts, of_system, n, d, open - units, credits_of)
  for p = #amounts, 1, -1 do
    local back = now_kept[p] - then_kept[p]
    if back > 0 then
      local feature_id, no, entity = unpack(places[p])
      local kind = entity ~= '' and 2 or 0
      if kind == 0 and entity_id ~= '' and find_row(get(slot_field(feature_id, entity_id), now), no) then
        kind, entity = 1, entity_id
      end
      give_back(at, feature_id, no, kind, entity, back, made_ms, now, paid)
    end
  end
  returned[f] = (returned[f] or 0) + units
  applied[f], dropped[f], held[f] = -units, asked_for - units, 1
  features[f] = {ARGV[at], -asked_for, -units, paid}
  for _, value in ipairs(paid) do all_paid[#all_paid + 1] = value end
  at = at + 4 + 3 * tonumber(ARGV[at + 3])
end
if not refusal and not any and mode == 'reject' then refusal = {'REFUSED', 1} end
if not refusal and needs_restore then refusal = {'ARCHIVED', 1} end
if refusal then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  return refusal
end
local state = cmsgpack.pack(returned)
plain_writes[name] = state
changes[#changes + 1] = {'f', tonumber(ARGV[12]), tonumber(ARGV[13]), state}
pack_touched()
local customer, entities = shown()
local reply = {now, applied, dropped, held, customer, entities, all_paid}
local receipt = fingerprint ~= '' and new_receipt(now + ttl_ms, fingerprint, cmsgpack.pack(reply), packed_cid)
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, ARGV[6], features, receipt or '')
write_changed(KEYS[2])
if receipt then remember(KEYS[1], ledger, KEYS[#KEYS], receipt, ttl_ms, id) end
return {'OK', id, now, applied, dropped, held, customer, entities, all_paid}
