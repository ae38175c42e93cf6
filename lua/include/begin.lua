-- How a script on one customer begins: the fence, the state that its call is about (include/call.lua
-- says which arguments name it), and the clock, which never goes back for a customer.
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local features_at = FIELDS_AT + 2 * count + (entity_id == '' and 1 or 2)
local values = redis.call('HMGET', KEYS[2], unpack(ARGV, FIELDS_AT, features_at - 1))
if not values[1] then return {'MISSING'} end
header = unpack_header(values[1])
if has(header[7], ABSENT) then return {'MISSING'} end
now = math.max(now, header[6])
