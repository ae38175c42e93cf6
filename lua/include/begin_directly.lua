-- How check and track begin: as begin.lua, with no more of the state unpacked than the common call needs.
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local FIELDS_AT, count, entity_id = 12, tonumber(ARGV[11]), ARGV[5]
local features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
local values = redis.call('HMGET', KEYS[2], unpack(ARGV, FIELDS_AT, features_at - 1))
if not values[1] then return {'MISSING'} end
local _, cid, version, _, _, last_ms, state_flags, next_roll = struct.unpack(HEADER, values[1])
if bit.band(state_flags, ABSENT) ~= 0 then return {'MISSING'} end
if last_ms > now then now = last_ms end
--- @include "direct"
