--[[
clock: moves the test clock of one partition forward.

KEYS 1 meta        partition meta
ARGV 1 offset_ms   ahead of the server's time; a smaller one than now is kept out
ANSWER OK offset_ms
CODES
--]]
local offset = math.max(tonumber(redis.call('HGET', KEYS[1], 'off')) or 0, tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], 'off', string.format('%d', offset))
-- Whoever looks at `run` alone (opened.lua) would not see it.
local run = redis.call('HGET', KEYS[1], 'run')
if run and offset > 0 then redis.call('HSET', KEYS[1], 'run', (string.match(run, '^[^ ]*'))) end
return {'OK', offset}
