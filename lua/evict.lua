--[[
evict: takes a customer's state, or what a deleted one left behind, out of Redis when SQL has all of it.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 entities    the customer's entity ids
KEYS 4 locks       its open holds by their end
KEYS 5 holds       the partition's open holds by their end
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 cursor_gen  the partition's cursor
ARGV 4 cursor_seq
ARGV 5 cid         whose state it is; 0 for whoever's
ARGV 6 customer_id its name
ANSWER OK | ABSENT | AHEAD
CODES STALE ABSENT AHEAD
--]]
--- @include "rows"
--- @include "ids"
--- @include "fence"
--- @include "marks"
if not fence(KEYS[1], ARGV[1], ARGV[2]) then return {'STALE'} end
local present = redis.call('HGET', KEYS[2], 'h')
if not present then return {'ABSENT'} end
local header, cid = unpack_header(present), tonumber(ARGV[5])
if cid > 0 and header[2] ~= cid then return {'ABSENT'} end
if before(tonumber(ARGV[3]), tonumber(ARGV[4]), header[4], header[5]) then return {'AHEAD'} end
raise_mark(KEYS[1], 'eg', 'es', header[4], header[5])
forget_holds(KEYS[4], KEYS[5], ARGV[6])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return {'OK'}
