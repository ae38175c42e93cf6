--[[
track: takes an event off a customer's balances, all features of it or (mode reject) none.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 mode        cap, reject or overflow
ARGV 4 entity_id   '' for none
ARGV 5 info        opaque, for the log
ARGV 6 fingerprint of the decoded call; '' without a key
ARGV 7 ttl_ms      life of an idempotency record
ARGV 8 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 9 bytes_max   bound of this partition's idempotency records
ARGV 10 count      how many feature fields follow
ARGV 11 fields     see include/call.lua; then the number of features and the features
ANSWER OK id now applied[] dropped[] held[] blobs[] entity_blobs[] deltas[] slots[]
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL REFUSED RANGE SLOTS
--]]
--- @include "fence"
--- @include "formats"
--- @include "ids"
--- @include "direct"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local FIELDS_AT, count, entity_id = 11, tonumber(ARGV[10]), ARGV[4]
local features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
local values = redis.call('HMGET', KEYS[2], unpack(ARGV, FIELDS_AT, features_at - 1))
if not values[1] then return {'MISSING'} end
local _, cid, version, _, _, last_ms, dead = struct.unpack(HEADER, values[1])
if dead == 1 then return {'MISSING'} end
if last_ms > now then now = last_ms end
local mode, fingerprint, ttl_ms = ARGV[3], ARGV[6], tonumber(ARGV[7])
local refusal, recall, new_receipt, remember
if fingerprint ~= '' then
--- @include "marks"
--- @include "receipt"
  refusal = recall(KEYS[1], KEYS[5], fingerprint, ARGV[8], ttl_ms, tonumber(ARGV[9]), now, cid)
end
local at = features_at + 1
local paying, price = payer(values, at)
local deltas, after
if paying and not refusal then deltas, after = pay_directly(values[1 + paying], now, price) end
if deltas then
  local amount = tonumber(ARGV[at + 2])
  local blobs, none = {}, {}
  for i = 1, count do blobs[i], none[i] = i == paying and after or values[1 + i] or '', {} end
  local reply = {now, {amount}, {0}, {1}, blobs, none, deltas, {}}
  local receipt = fingerprint ~= '' and new_receipt(now, ttl_ms, fingerprint, reply, cid)
  local record = {1, 1, cid, now, version, '', ARGV[5], 0, 1, ARGV[at], amount, amount, #deltas / 2}
  for i = 1, #deltas do record[13 + i] = deltas[i] end
  local end_at = 13 + #deltas
  record[end_at + 1], record[end_at + 2], record[end_at + 3] = 0, {}, receipt and cmsgpack.pack(receipt) or ''
  local id = redis.call('XADD', KEYS[3], entry_id(ARGV[1]), 'd', cmsgpack.pack(record))
  local seq = tonumber(string.match(id, '%d+$'))
  redis.call('HSET', KEYS[2], 'h', struct.pack(HEADER, FORMAT, cid, version, tonumber(ARGV[1]), seq, now, 0),
    ARGV[FIELDS_AT + paying], after)
  if receipt then remember(KEYS[1], KEYS[5], receipt, ttl_ms, id) end
  return {'OK', id, now, reply[2], reply[3], reply[4], blobs, none, deltas, {}}
end
--- @include "rows"
--- @include "keys"
--- @include "calendar"
--- @include "resets"
--- @include "convert"
--- @include "order"
--- @include "walk"
--- @include "plan"
--- @include "apply"
--- @include "state"
--- @include "call"
header = unpack_header(values[1])
local code = read_state(KEYS[2], values, now)
if code then return {code} end

local features, slots, applied, dropped, held = {}, {}, {}, {}, {}
deltas = {}
for f = 1, refusal and 0 or tonumber(ARGV[features_at]) do
  local amount = tonumber(ARGV[at + 2])
  local w = build_walk(at, amount, now)
  local left = 0
  if amount > 0 then left = plan_spend(w, amount, mode) elseif amount < 0 then left = plan_refund(w, -amount, mode) end
  if not left or not in_range(w) then refusal = {'RANGE', f}
  elseif left > 0 and w.truncated then refusal = {'SLOTS', f}
  elseif left > 0 and amount > 0 and mode == 'reject' and w.held and not w.boolean then refusal = {'REFUSED', f}
  end
  if refusal then break end
  apply(w, deltas, slots, touched)
  held[f] = w.held and (w.boolean and 2 or 1) or 0
  dropped[f] = left
  applied[f] = w.m == 0 and 0 or (amount > 0 and amount - left or amount + left)
  features[#features + 1], features[#features + 2], features[#features + 3] = ARGV[at], amount, applied[f]
  at = at + 4 + 3 * tonumber(ARGV[at + 3])
end

if refusal then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  return refusal
end
pack_touched()
local customer, entities = shown()
local reply = {now, applied, dropped, held, customer, entities, deltas, slots}
local receipt = fingerprint ~= '' and new_receipt(now, ttl_ms, fingerprint, reply, cid)
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, ARGV[5], features, deltas, slots, {},
  receipt and cmsgpack.pack(receipt) or '')
write_changed(KEYS[2])
if receipt then remember(KEYS[1], KEYS[5], receipt, ttl_ms, id) end
return {'OK', id, now, applied, dropped, held, customer, entities, deltas, slots}
