--[[
trim: drops log entries that SQL has, and notes up to where.

KEYS 1 meta        partition meta
KEYS 2 log         partition log
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 gen         the last entry that may go
ARGV 4 seq
ANSWER OK dropped
CODES STALE
--]]
--- @include "ids"
--- @include "fence"
--- @include "marks"
if not fence(KEYS[1], ARGV[1], ARGV[2]) then return {'STALE'} end
local seq = tonumber(ARGV[4])
raise_mark(KEYS[1], 'tg', 'ts', tonumber(ARGV[3]), seq)
return {'OK', redis.call('XTRIM', KEYS[2], 'MINID', '~', log_id(ARGV[3], string.format('%d', seq + 1)))}
