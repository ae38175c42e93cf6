--[[
check: may this customer use so many units of a feature? With send_event also takes them off.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 send        1 to spend what is allowed
ARGV 4 entity_id   '' for none
ARGV 5 info        opaque, for the log
ARGV 6 fingerprint of the decoded call; '' without a key
ARGV 7 ttl_ms      life of an idempotency record
ARGV 8 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 9 bytes_max   bound of this partition's idempotency records
ARGV 10 count      how many feature fields follow
ARGV 11 fields     see include/call.lua; then 1 and the feature
ANSWER OK id now allowed reason shown required blobs[] entity_blobs[] deltas[] slots[]
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL RANGE SLOTS
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
local send, fingerprint, ttl_ms = ARGV[3] == '1', ARGV[6], tonumber(ARGV[7])
local refusal, recall, new_receipt, remember
if send and fingerprint ~= '' then
--- @include "marks"
--- @include "receipt"
  refusal = recall(KEYS[1], KEYS[5], fingerprint, ARGV[8], ttl_ms, tonumber(ARGV[9]), now, cid)
end
local at = features_at + 1
local amount = tonumber(ARGV[at + 2])
local paying, price = payer(values, at)
local deltas, after
if paying and not refusal then deltas, after = pay_directly(values[1 + paying], now, price) end
if deltas then
  local shown = paying ~= tonumber(ARGV[at + 1]) and 1 or 0
  local blobs, none = {}, {}
  for i = 1, count do blobs[i], none[i] = values[1 + i] or '', {} end
  if not send then return {'OK', '', now, 1, '', shown, price, blobs, none, {}, {}} end
  blobs[paying] = after
  local reply = {now, 1, '', shown, price, blobs, none, deltas, {}}
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
  return {'OK', id, now, 1, '', shown, price, blobs, none, deltas, {}}
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

local systems = tonumber(ARGV[at + 3])

-- Whether the walk holds anything, whether it can pay the whole amount as it is, and what of it no
-- bucket takes: nil past the range.
local function judge(w)
  if not w.held then return false, false, 0 end
  if amount <= 0 or w.boolean then return true, true, 0 end
  local left = plan_spend(w, amount, 'reject')
  if left and not in_range(w) then left = nil end
  return true, left == 0, left
end

-- Whose balance the answer shows: the feature's if it alone suffices, else the first held system
-- that does, else the first held system, else the feature. Returns 0 or the system's number.
local function choose(own_held, own_fits)
  if systems == 0 or own_fits then return 0 end
  local first
  for s = 1, systems do
    local held, fits = judge(build_walk(at, amount, now, s))
    if held and fits then return s end
    if held and not first then first = s end
  end
  return first or 0
end

local allowed, reason, chosen, w, left = 0, '', 0, nil, 0
if not refusal then
  w = build_walk(at, amount, now)
  local own_held, own_fits = false, false
  if systems > 0 then own_held, own_fits = judge(build_walk(at, amount, now, 0)) end
  local held, fits
  held, fits, left = judge(w)
  if not left then refusal = {'RANGE', 1}
  elseif left > 0 and w.truncated then refusal = {'SLOTS', 1} end
  allowed = fits and 1 or 0
  reason = fits and '' or (held and 'insufficient_balance' or 'not_held')
  chosen = choose(own_held, own_fits)
end
local required = amount
if chosen > 0 and amount > 0 then
  local base = at + 4 + (chosen - 1) * 3
  required = credits_of(amount, tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])) or amount
elseif chosen > 0 and amount < 0 then
  local base = at + 4 + (chosen - 1) * 3
  required = -(credits_back(-amount, tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])) or -amount)
end

if not refusal and send and amount < 0 and allowed == 1 and not w.boolean then
  left = plan_refund(w, -amount, 'reject')
  if not left or not in_range(w) then refusal = {'RANGE', 1} end
end
if refusal or not send or allowed == 0 then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  if refusal then return refusal end
  local customer, entities = shown()
  return {'OK', '', now, allowed, reason, chosen, required, customer, entities, {}, {}}
end

local slots, applied = {}, 0
deltas = {}
if not w.boolean then
  apply(w, deltas, slots, touched)
  applied = amount > 0 and amount or amount + left
end
pack_touched()
local customer, entities = shown()
local reply = {now, allowed, reason, chosen, required, customer, entities, deltas, slots}
local receipt = fingerprint ~= '' and new_receipt(now, ttl_ms, fingerprint, reply, cid)
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, ARGV[5], {ARGV[at], amount, applied}, deltas, slots, {},
  receipt and cmsgpack.pack(receipt) or '')
write_changed(KEYS[2])
if receipt then remember(KEYS[1], KEYS[5], receipt, ttl_ms, id) end
return {'OK', id, now, allowed, reason, chosen, required, customer, entities, deltas, slots}
