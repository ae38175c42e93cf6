-- The least that says whether two buckets hold so much. KEYS 1 a customer's hash; ARGV 1 units
local state = redis.call('HMGET', KEYS[1], 'a', 'b')
local a, b = tonumber(state[1]), tonumber(state[2])
return {a + b >= tonumber(ARGV[1]) and 1 or 0, a, b}
