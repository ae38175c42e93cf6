--[[
load: puts a customer that Redis does not hold there, as SQL has it. Only fills what is absent.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 entities    the customer's entity ids
KEYS 4 locks       its open holds by their end
KEYS 5 holds       the partition's open holds by their end
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 sql_generation  of the partition in the snapshot the customer was read in
ARGV 4 cursor_gen  the partition's cursor in that snapshot
ARGV 5 cursor_seq
ARGV 6 cid         the customer's internal id
ARGV 7 customer_id its name
ARGV 8 members     msgpack array of entity members
ARGV 9 locks       msgpack array of open holds: lock id, end, lock id, end ...
ARGV 10 header     the state's header, packed
ARGV 11 fields     field, value, field, value ... of the rest of the state
ANSWER OK | EXISTS version | OTHER cid | BEHIND
CODES STALE EXISTS OTHER BEHIND
--]]
--- @include "rows"
--- @include "ids"
--- @include "fence"
--- @include "marks"
if not fence(KEYS[1], ARGV[1], ARGV[2]) then return {'STALE'} end
local cid, cursor_gen, cursor_seq = tonumber(ARGV[6]), tonumber(ARGV[4]), tonumber(ARGV[5])
local present, dead = redis.call('HGET', KEYS[2], 'h'), nil
if present then
  local header = unpack_header(present)
  if header[2] == cid then return {'EXISTS', header[3]} end
  if not has(header[7], DEAD) or header[2] > cid then return {'OTHER', header[2]} end
  dead = header
end
-- A snapshot of another generation, or from before a state was evicted, may be of the past.
if ARGV[3] ~= ARGV[1] then return {'BEHIND'} end
local evicted_gen, evicted_seq = mark(KEYS[1], 'eg', 'es')
if before(cursor_gen, cursor_seq, evicted_gen, evicted_seq) then return {'BEHIND'} end
local header = unpack_header(ARGV[10])
if dead then
  -- Its deletion may not be in SQL yet: what follows must not leave Redis before it is.
  if before(header[4], header[5], dead[4], dead[5]) then header[4], header[5] = dead[4], dead[5] end
  header[6] = math.max(header[6], dead[6])
  redis.call('DEL', KEYS[2], KEYS[3])
end
redis.call('HSET', KEYS[2], 'h', pack_header(header))
for i = 11, #ARGV, 1000 do redis.call('HSET', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV))) end
local members, locks = cmsgpack.unpack(ARGV[8]), cmsgpack.unpack(ARGV[9])
for i = 1, #members do redis.call('ZADD', KEYS[3], 0, members[i]) end
for i = 1, #locks, 2 do
  redis.call('ZADD', KEYS[4], locks[i + 1], locks[i])
  redis.call('ZADD', KEYS[5], locks[i + 1], hold_member(ARGV[7], locks[i]))
end
return {'OK'}
