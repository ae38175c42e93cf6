--[[
check: may this customer use so many units of a feature? With send_event also takes them off.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 call        packed: its features and settings; include/begin_directly.lua says how
ARGV 4 amounts     of its features, packed in 8 bytes each
ARGV 5 info        with send_event: opaque, for the log; a string in MessagePack
ARGV 6 kept        with a key: life of a record, bound of this partition's, the call's fingerprint; packed
ARGV 7 looked_up   with a key: generation and cursor of the snapshot in which SQL did not have it
ANSWER OK id now allowed reason shown required blobs[] entity_blobs[] parts[]; allowed by the only field
       and not sent: now and its blob, packed
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL RANGE SLOTS ARCHIVED
--]]
--- @include "formats"
local send, receipt, packed_reply = false, '', ''
--- @include "begin_directly"
if uncovered == 0 then
  local packed = values[1 + paying]
  if not send and count == 1 then return pack('>i8', now) .. packed end
  local blobs, none = {}, {}
  for i = 1, count do blobs[i], none[i] = values[1 + i] or '', {} end
  local answer = {now, 1, '', paying ~= (words and words[at + 1] or 1) and 1 or 0, price, blobs, none, {}}
  if not send then return {'OK', '', unpack(answer)} end
  blobs[paying], answer[8] = after, {cmsgpack.unpack(parts)}
  if not words then of_feature = select(5, read(CALL, ARGV[3])) end
  if keyed then packed_reply = cmsgpack.pack(answer) end
--- @include "keep_directly"
  return {'OK', id, unpack(answer)}
end

return (function()
--- @include "otherwise"
--- @include "decide"

if not refusal and send and amount < 0 and archived_in(at) then refusal = {'ARCHIVED', 1} end
local allowed, reason, chosen, required, w, left
if not refusal then refusal, allowed, reason, chosen, required, w, left = decide(at, amount, now) end
local paid, applied = {}, 0
if not refusal and send and allowed == 1 and not w.boolean then
  apply(w, paid)
  applied = amount > 0 and amount or amount + left
  if amount > 0 and not count_spend(at, w, applied, now) then refusal = {'RANGE', 1} end
end
if refusal or not send or allowed == 0 then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  if refusal then return refusal end
  local customer, entities = shown()
  return {'OK', '', now, allowed, reason, chosen, required, customer, entities, {}}
end

pack_touched()
local customer, entities = shown()
local answer = {now, allowed, reason, chosen, required, customer, entities, paid}
if keyed then receipt = new_receipt(now + ttl_ms, fingerprint, cmsgpack.pack(answer), packed_cid) end
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, info, {{ARGV[at], amount, applied, paid}}, receipt)
write_changed(KEYS[2])
if keyed then remember(KEYS[1], ledger, KEYS[5], receipt, ttl_ms, id) end
return {'OK', id, unpack(answer)}
end)()
