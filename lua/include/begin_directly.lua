-- How check and track begin: as begin_keyed.lua, with no more of the state and of the arguments unpacked than
-- the common call needs; and the common call itself (direct.lua).
--
-- Every argument costs a call, used or not. So what all calls of the same features say is one, `call`: packed,
-- whether it is of a single feature, without an entity and without credit systems; the caller's choice (a brief
-- track, a check that is to send); for a single feature the fields of its buckets and of its entities' lists, and
-- what the log says between info and amount; then, as MessagePack, the arguments as other scripts take them
-- (FIELDS_AT on: include/call.lua).
local CALL, AMOUNT, KEPT = '>BBI2c0I2c0I2c0', '>i8', '>i8i8Bc0'
local FIELDS_AT = 7
local single, choice, buckets_field, lists_field, of_feature, words_at = struct.unpack(CALL, ARGV[3])
send = send or choice == 1
local keyed = KEYS[5]
local meta = keyed and redis.call('HMGET', KEYS[1], 'gen', 'run', 'off', 'kl', 'ik') or redis.call('HMGET', KEYS[1], 'gen', 'run', 'off')
local now = opened(meta, ARGV[1], ARGV[2])
if not now then return {'STALE'} end

-- The arguments that other scripts have one by one: generation, run_id, carry_debts, mode, entity_id, count,
-- the fields, the number of features and the features, with their amounts.
local function whole_arguments()
  local words = cmsgpack.unpack(string.sub(ARGV[3], words_at))
  local at = FIELDS_AT + 2 * words[6] + (words[5] == '' and 1 or 2)
  words[1], words[2] = ARGV[1], ARGV[2]
  for f = 1, words[at] do
    words[at + 3] = struct.unpack(AMOUNT, ARGV[4], 8 * f - 7)
    at = at + 4 + 3 * words[at + 4]
  end
  return words
end
local words, values, count, entity_id, features_at = nil, nil, 1, '', FIELDS_AT + 3
if single == 1 then
  values = redis.call('HMGET', KEYS[2], 'h', buckets_field, lists_field)
else
  words = whole_arguments()
  count, entity_id = words[6], words[5]
  features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
  values = redis.call('HMGET', KEYS[2], unpack(words, FIELDS_AT, features_at - 1))
end
if not values[1] then return {'MISSING'} end
local last_ms, state_flags, packed_roll = struct.unpack(HEADER_END, values[1], LAST_MS_AT)
if state_flags ~= 0 and bit.band(state_flags, ABSENT) ~= 0 then return {'MISSING'} end
if last_ms > now then now = last_ms end
local refusal, ledger, ledger_at, new_receipt, remember, ttl_ms, fingerprint, packed_cid
if keyed then
--- @include "receipt"
  local bytes_max, total
  packed_cid = string.sub(values[1], CID_AT, CID_AT + 7)
  ttl_ms, bytes_max, fingerprint = struct.unpack(KEPT, ARGV[6])
  local stored = redis.call('GET', KEYS[5])
  if stored or meta[4] then
--- @include "recall"
    refusal = recall(stored, meta[4], fingerprint, ARGV[7] or '', now, packed_cid)
  end
  ledger, total = ledger_at(meta[5], now, ttl_ms)
  if not refusal and total > bytes_max then refusal = {'FULL'} end
end
--- @include "direct"
