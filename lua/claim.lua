--[[
claim: takes a lock id for a hold that is to be made, or moves its directory entry on.

KEYS 1 meta        partition meta, of the lock id's partition
KEYS 2 lock        its directory entry
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 claim       the entry to write, '' to take it out
ARGV 4 expected    the entry it takes the place of, '' for none
ARGV 5 ttl_ms      life of the entry
ARGV 6 looked_up   generation and cursor of the snapshot in which SQL had no open hold of that id
ANSWER OK | TAKEN entry | ASK
CODES STALE TAKEN ASK
--]]
--- @include "fence"
--- @include "marks"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local present = redis.call('GET', KEYS[2]) or ''
if present ~= ARGV[4] then return {'TAKEN', present} end
-- Where entries were lost, SQL says which holds are open.
local lost_until = tonumber(redis.call('HGET', KEYS[1], 'kl') or '') or 0
if present == '' and lost_until > now and ARGV[6] == '' then return {'ASK'} end
if ARGV[3] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[5]) end
return {'OK'}
