--[[
track: takes an event off a customer's balances, all features of it or (mode reject) none.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 call        packed: its features and settings; include/begin_directly.lua says how
ARGV 4 amounts     of its features, packed in 8 bytes each
ARGV 5 info        opaque, for the log; a string in MessagePack
ARGV 6 kept        with a key: life of a record, bound of this partition's, the call's fingerprint; packed
ARGV 7 looked_up   with a key: generation and cursor of the snapshot in which SQL did not have it
ANSWER OK id now applied[] dropped[] held[] blobs[] entity_blobs[] parts[]; brief only the id
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL REFUSED RANGE SLOTS ARCHIVED
--]]
--- @include "formats"
local send, receipt, packed_reply = true, '', ''
--- @include "begin_directly"
local brief = choice == 1
if uncovered == 0 then
  local answer
  if not brief then
    local blobs, none = {}, {}
    for i = 1, count do blobs[i], none[i] = i == paying and after or values[1 + i] or '', {} end
    answer = {now, {amount}, {0}, {1}, blobs, none, {cmsgpack.unpack(parts)}}
  end
  if keyed and answer then packed_reply = cmsgpack.pack(answer) end
--- @include "keep_directly"
  if brief then return id end
  return {'OK', id, unpack(answer)}
end

return (function()
--- @include "otherwise"
local mode = ARGV[4]

local features, applied, dropped, held = {}, {}, {}, {}
parts = {}
for f = 1, refusal and 0 or tonumber(ARGV[features_at]) do
  amount = tonumber(ARGV[at + 2])
  if amount < 0 and archived_in(at) then refusal = {'ARCHIVED', f} break end
  local w = build_walk(at, amount, now)
  local left = 0
  if amount > 0 then left = plan_spend(w, amount, mode) elseif amount < 0 then left = plan_refund(w, -amount, mode) end
  if not left or not in_range(w) then refusal = {'RANGE', f}
  elseif left > 0 and w.truncated then refusal = {'SLOTS', f}
  elseif left > 0 and amount > 0 and mode == 'reject' and w.held and not w.boolean then
    refusal = {'REFUSED', f, reason_of(at, amount, now, build_walk(at, amount, now), left)}
  end
  if refusal then break end
  local paid = {}
  apply(w, paid)
  held[f] = w.held and (w.boolean and 2 or 1) or 0
  dropped[f] = left
  applied[f] = w.m == 0 and 0 or (amount > 0 and amount - left or amount + left)
  if amount > 0 and not count_spend(at, w, applied[f], now) then refusal = {'RANGE', f} break end
  for i = 1, #paid do parts[#parts + 1] = paid[i] end
  features[f] = {ARGV[at], amount, applied[f], paid}
  at = at + 4 + 3 * tonumber(ARGV[at + 3])
end

if refusal then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  return refusal
end
pack_touched()
local customer, entities = shown()
local answer = {now, applied, dropped, held, customer, entities, parts}
if keyed then
  receipt = new_receipt(now + ttl_ms, fingerprint, brief and '' or cmsgpack.pack(answer), packed_cid)
end
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, info, features, receipt)
write_changed(KEYS[2])
if keyed then remember(KEYS[1], ledger, KEYS[5], receipt, ttl_ms, id) end
if brief then return id end
return {'OK', id, unpack(answer)}
end)()
