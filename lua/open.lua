--[[
open: closes a partition under a new generation; nothing runs on it until `opened` says so.

KEYS 1 meta        partition meta
KEYS 2 log         partition log
ARGV 1 generation  the new one, taken in SQL
ARGV 2 partitions  how many partitions the whole has
ARGV 3 cursor_gen  SQL's cursor, taken with the generation
ARGV 4 cursor_seq
ANSWER OK last_gen last_seq next_id next_entry trimmed_gen trimmed_seq | HIGHER generation | COUNT partitions
CODES HIGHER COUNT
--]]
--- @include "ids"
--- @include "marks"
local meta = redis.call('HMGET', KEYS[1], 'gen', 'n')
if meta[1] and tonumber(meta[1]) >= tonumber(ARGV[1]) then return {'HIGHER', meta[1]} end
if meta[2] and meta[2] ~= ARGV[2] then return {'COUNT', meta[2]} end
local last, next_id, next_entry = '0-0', '', ''
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
  local from = tonumber(ARGV[4]) < 0 and '-' or after_id(ARGV[3], ARGV[4])
  local following = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 1)
  if following[1] then next_id, next_entry = following[1][1], following[1][2][2] end
end
redis.call('HSET', KEYS[1], 'gen', ARGV[1], 'run', '', 'n', ARGV[2])
local last_gen, last_seq = string.match(last, '(%d+)-(%d+)')
local trimmed_gen, trimmed_seq = mark(KEYS[1], 'tg', 'ts')
return {'OK', tonumber(last_gen), tonumber(last_seq), next_id, next_entry, trimmed_gen, trimmed_seq}
