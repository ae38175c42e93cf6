--[[
forget: takes states out of a partition that is being opened, because SQL is ahead of them. They are
loaded again on demand.

KEYS 1 meta        partition meta
KEYS 2 log         partition log
KEYS 3 holds       the partition's open holds by their end
KEYS 4 states      any number of customer, entity, lock and record keys
ARGV 1 generation  it is being opened under
ARGV 2 cursor_gen  the partition's cursor: no snapshot behind it may be loaded
ARGV 3 cursor_seq
ARGV 4 lost_until_ms  until when unknown idempotency keys are looked up in SQL
ARGV 5 cut         1 to drop the log's entries: SQL will never read them
ANSWER OK | HIGHER generation
CODES HIGHER
--]]
--- @include "ids"
--- @include "marks"
local meta = redis.call('HMGET', KEYS[1], 'gen', 'run')
if meta[1] ~= ARGV[1] or meta[2] ~= '' then return {'HIGHER', meta[1] or ''} end
for i = 4, #KEYS do
  local customer_id = string.match(KEYS[i], '^{p%d+}:h:(.*)$')
  if customer_id then forget_holds(KEYS[i], KEYS[3], customer_id) end
  redis.call('DEL', KEYS[i])
end
if ARGV[5] == '1' then redis.call('XTRIM', KEYS[2], 'MAXLEN', 0) end
raise_mark(KEYS[1], 'eg', 'es', tonumber(ARGV[2]), tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'kl', ARGV[4])
return {'OK'}
