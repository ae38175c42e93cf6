-- As begin.lua, and what the call's idempotency key, the last of its keys, stands for already.
--- @include "marks"
--- @include "begin"
--- @include "ledger"
--- @include "receipt"
--- @include "recall"
local fingerprint, ttl_ms, packed_cid = ARGV[7], tonumber(ARGV[8]), struct.pack('>i8', header[2])
local refusal, ledger
if fingerprint ~= '' then
  local meta = redis.call('HMGET', KEYS[1], 'kl', 'ik')
  refusal = recall(redis.call('GET', KEYS[#KEYS]), meta[1], fingerprint, ARGV[9], now, packed_cid)
  local total
  ledger, total = ledger_at(meta[2], now, ttl_ms)
  if not refusal and total > tonumber(ARGV[10]) then refusal = {'FULL'} end
end
