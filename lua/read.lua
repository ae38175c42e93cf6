--[[
read: the log entries after a cursor, from a partition that is open for the cursor's generation.

KEYS 1 meta        partition meta
KEYS 2 log         partition log
ARGV 1 generation  of the partition in the snapshot that the cursor is from
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 cursor_gen  the last entry SQL has
ARGV 4 cursor_seq
ARGV 5 count       how many entries at most
ANSWER OK entries[] | BEHIND gen seq
CODES STALE BEHIND
--]]
--- @include "ids"
--- @include "fence"
--- @include "marks"
if not fence(KEYS[1], ARGV[1], ARGV[2]) then return {'STALE'} end
local cursor_gen, cursor_seq = tonumber(ARGV[3]), tonumber(ARGV[4])
for _, fields in ipairs({{'tg', 'ts'}, {'eg', 'es'}}) do
  local gen, seq = mark(KEYS[1], fields[1], fields[2])
  if before(cursor_gen, cursor_seq, gen, seq) then return {'BEHIND', gen, seq} end
end
local from = cursor_seq < 0 and '-' or after_id(ARGV[3], ARGV[4])
return {'OK', redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[5])}
