-- How check and track begin: as begin_keyed.lua, with no more of the state unpacked than the common call
-- needs; and the common call itself (direct.lua).
local fingerprint, ttl_ms = ARGV[7], tonumber(ARGV[8])
local keyed = fingerprint ~= ''
local meta = keyed and redis.call('HMGET', KEYS[1], 'gen', 'run', 'off', 'kl', 'ik') or redis.call('HMGET', KEYS[1], 'gen', 'run', 'off')
local now = opened(meta, ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local count, entity_id = tonumber(ARGV[11]), ARGV[5]
local features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
local values = redis.call('HMGET', KEYS[2], unpack(ARGV, FIELDS_AT, features_at - 1))
if not values[1] then return {'MISSING'} end
local _, cid, version, _, _, last_ms, state_flags, next_roll = struct.unpack(HEADER, values[1])
if bit.band(state_flags, ABSENT) ~= 0 then return {'MISSING'} end
if last_ms > now then now = last_ms end
local refusal, ledger
if keyed then
  local stored = redis.call('GET', KEYS[5])
  if stored or meta[4] then
--- @include "recall"
    refusal = recall(stored, meta[4], fingerprint, ARGV[9], now, cid)
  end
  local total
  ledger, total = ledger_at(meta[5], now, ttl_ms)
  if not refusal and total > tonumber(ARGV[10]) then refusal = {'FULL'} end
end
--- @include "direct"
