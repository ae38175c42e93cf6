-- The least that takes units off two buckets and says so: no fence, no clock, no plans, no key.
-- KEYS 1 a customer's hash with the buckets a and b, 2 a stream; ARGV 1 units, 2 what to log
local state, units = redis.call('HMGET', KEYS[1], 'a', 'b'), tonumber(ARGV[1])
local a, b = tonumber(state[1]), tonumber(state[2])
local from_a = math.min(units, a)
if units - from_a > b then return {'', a, b} end
a, b = a - from_a, b - (units - from_a)
redis.call('HSET', KEYS[1], 'a', a, 'b', b)
return {redis.call('XADD', KEYS[2], '*', 'd', ARGV[2]), a, b}
