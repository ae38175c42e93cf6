-- As begin.lua, and what the call's idempotency key, the last of its keys, stands for already.
--- @include "marks"
--- @include "begin"
local fingerprint, ttl_ms, cid = ARGV[7], tonumber(ARGV[8]), header[2]
local refusal, recall, new_receipt, remember
if fingerprint ~= '' then
--- @include "receipt"
  refusal = recall(KEYS[1], KEYS[#KEYS], fingerprint, ARGV[9], ttl_ms, tonumber(ARGV[10]), now, cid)
end
