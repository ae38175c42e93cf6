--[[
opened: lets calls on to a partition that `open` closed under this generation. The log's first entry
of the generation says after which entry it goes on.

The meta's `run` is the server's run_id; with the generation behind it where the test clock was not moved and no
key has to be looked up in SQL (nor would have, were the server's clock put back by less than a day), so that check
and track need read nothing else of it.

KEYS 1 meta        partition meta
KEYS 2 log         partition log
ARGV 1 generation  it was closed under
ARGV 2 run_id      of the server it was closed on
ARGV 3 offset_ms   the test clock's offset, 0 without one; it only ever grows
ARGV 4 base_gen    the entry before: the log's last, or SQL's cursor where that is ahead
ARGV 5 base_seq
ANSWER OK | HIGHER generation
CODES HIGHER
--]]
--- @include "ids"
local DAY_MS = 86400000
local meta = redis.call('HMGET', KEYS[1], 'gen', 'run', 'off', 'kl')
if meta[1] ~= ARGV[1] or meta[2] ~= '' then return {'HIGHER', meta[1] or ''} end
local offset = math.max(tonumber(meta[3]) or 0, tonumber(ARGV[3]))
redis.call('XADD', KEYS[2], entry_id(ARGV[1]), 'd', cmsgpack.pack({1, 4, tonumber(ARGV[4]), tonumber(ARGV[5])}))
local ordinary = offset == 0 and (tonumber(meta[4]) or 0) <= redis.call('TIME')[1] * 1000 - DAY_MS
redis.call('HSET', KEYS[1], 'run', ordinary and open_for(ARGV[2], ARGV[1]) or ARGV[2], 'off', string.format('%d', offset))
return {'OK'}
