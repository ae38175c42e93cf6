--[[
keep: keeps the idempotency record of a call that SQL decides: its place while that is under way, then
the record.

KEYS 1 meta        partition meta
KEYS 2 record      idempotency record
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 action      take (its place), keep (the record) or free (the place)
ARGV 4 cid         the customer's internal id
ARGV 5 fingerprint of the decoded call
ARGV 6 ttl_ms      life of an idempotency record
ARGV 7 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 8 bytes_max   bound of this partition's idempotency records
ARGV 9 receipt     to keep: the record as SQL has it; '' else
ANSWER OK | REPLAY id reply (reply '' for a place) | CONFLICT | ASK cid | FULL
CODES STALE REPLAY CONFLICT ASK FULL
--]]
--- @include "fence"
--- @include "formats"
--- @include "ledger"
--- @include "receipt"
--- @include "recall"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local PLACE_MS = 60000
local action, packed_cid, fingerprint, ttl_ms = ARGV[3], struct.pack('>i8', ARGV[4]), ARGV[5], tonumber(ARGV[6])
local meta, stored = redis.call('HMGET', KEYS[1], 'kl', 'ik'), redis.call('GET', KEYS[2])
local ledger, total = ledger_at(meta[2], now, ttl_ms)
if action == 'take' then
  local found = recall(stored, meta[1], fingerprint, ARGV[7], now, packed_cid)
  if not found and total > tonumber(ARGV[8]) then found = {'FULL'} end
  if found then return found end
  local receipt = new_receipt(now + PLACE_MS, fingerprint, '', packed_cid)
  redis.call('SET', KEYS[2], receipt .. '0-0' .. string.char(3), 'PX', PLACE_MS)  -- not counted: it goes soon
  return {'OK'}
end
local end_ms, of, print, reply = record_parts(stored)
local is_place = of == packed_cid and print == fingerprint and reply == ''
if action == 'free' then
  if is_place then redis.call('DEL', KEYS[2]) end
elseif is_place or not end_ms or end_ms <= now then
  end_ms = struct.unpack('>i8', ARGV[9], 2)
  if end_ms > now then remember(KEYS[1], ledger, KEYS[2], ARGV[9], end_ms - now, '0-0') end
end
return {'OK'}
