-- How check and track begin: as begin_keyed.lua, with no more of the state and of the arguments unpacked than
-- the common call needs; and the common call itself (direct.lua). Globals are looked up once, and what is no
-- part of the common call stands in a function that only the others make.
--
-- Every argument costs a call, used or not. So what all calls of the same features say is one, `call`: packed,
-- whether it is of a single feature, without an entity and without credit systems; the caller's choice (a brief
-- track, a check that is to send); for a single feature the fields of its buckets and of its entities' lists, and
-- what the log says between info and amount; then, as MessagePack, the arguments as other scripts take them
-- (FIELDS_AT on: include/call.lua).
local KEYS, ARGV, call, pack, read, sub = KEYS, ARGV, redis.call, struct.pack, struct.unpack, string.sub
local CALL, CALL_BEGIN, AMOUNT, KEPT, FINGERPRINT_AT = '>BBI2c0I2c0I2c0', '>BBI2c0I2c0', '>i8', '>i8i8', 18
local FIELDS_AT = 7
local single, choice, buckets_field, lists_field, of_feature = read(send and CALL or CALL_BEGIN, ARGV[3])
send = send or choice == 1
local generation, meta_key, keyed, offset, run, ledger, lost_until = ARGV[1], KEYS[1], KEYS[5], 0, nil, nil, nil
if keyed then
  local meta = call('HMGET', meta_key, 'run', 'ik')
  run, ledger = meta[1], meta[2]
else
  run = call('HGET', meta_key, 'run')
end
if run ~= ARGV[2] .. ' ' .. generation then  -- fence.lua and opened.lua say what it may be besides
  local meta = call('HMGET', meta_key, 'gen', 'run', 'off', 'kl')
  if meta[1] ~= generation or meta[2] ~= ARGV[2] then return {'STALE'} end
  offset, lost_until = meta[3] or 0, meta[4]
end
--- @include "clock"

local words, values, count, entity_id, features_at = nil, nil, 1, '', FIELDS_AT + 3
if single == 1 then
  values = call('HMGET', KEYS[2], 'h', buckets_field, lists_field)
else
  local _, _, _, _, _, words_at = read(CALL, ARGV[3])
  words = cmsgpack.unpack(sub(ARGV[3], words_at))
  count, entity_id = words[6], words[5]
  features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
  values = call('HMGET', KEYS[2], unpack(words, FIELDS_AT, features_at - 1))
end
local packed_header = values[1]
if not packed_header then return {'MISSING'} end
local packed_cid, packed_version, last_ms, state_flags, packed_roll, _
if send or keyed then
  packed_cid, _, packed_version, _, _, last_ms, state_flags, packed_roll = read(HEADER_PARTS, packed_header, CID_AT)
else
  last_ms, state_flags = read(HEADER_END, packed_header, LAST_MS_AT)
end
if state_flags ~= 0 and bit.band(state_flags, ABSENT) ~= 0 then return {'MISSING'} end
if last_ms > now then now = last_ms end
local refusal, ttl_ms, ledger_bytes, window_bytes
if keyed then
  local bytes_max, format, ledger_window
  ttl_ms, bytes_max = read(KEPT, ARGV[6])
  local stored = call('GET', keyed)
  if stored or lost_until then
--- @include "recall"
    refusal = recall(stored, lost_until, sub(ARGV[6], FINGERPRINT_AT), ARGV[7] or '', now, packed_cid)
  end
  if ledger and #ledger == LEDGER_SIZE then format, ledger_window, ledger_bytes, window_bytes = read(LEDGER_HEAD, ledger) end
  if format ~= FORMAT or ledger_window ~= (now - now % (ttl_ms / 8)) / (ttl_ms / 8) then
--- @include "ledger"
    ledger = ledger_at(ledger, now, ttl_ms)
    _, _, ledger_bytes, window_bytes = read(LEDGER_HEAD, ledger)
  end
  if not refusal and ledger_bytes > bytes_max then refusal = {'FULL'} end
end
--- @include "direct"
