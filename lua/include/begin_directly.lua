-- How check and track begin: as begin.lua, with no more of the state unpacked than the common call needs;
-- what the call's key stands for; and the common call itself (direct.lua).
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local count, entity_id = tonumber(ARGV[11]), ARGV[5]
local features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
local values = redis.call('HMGET', KEYS[2], unpack(ARGV, FIELDS_AT, features_at - 1))
if not values[1] then return {'MISSING'} end
local _, cid, version, _, _, last_ms, state_flags, next_roll = struct.unpack(HEADER, values[1])
if bit.band(state_flags, ABSENT) ~= 0 then return {'MISSING'} end
if last_ms > now then now = last_ms end
local fingerprint, ttl_ms = ARGV[7], tonumber(ARGV[8])
local refusal, recall, new_receipt, remember
if fingerprint ~= '' then
--- @include "marks"
--- @include "receipt"
  refusal = recall(KEYS[1], KEYS[5], fingerprint, ARGV[9], ttl_ms, tonumber(ARGV[10]), now, cid)
end
--- @include "direct"
