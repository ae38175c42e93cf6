--[[
track: takes an event off a customer's balances, all features of it or (mode reject) none.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 mode        cap, reject or overflow
ARGV 4 entity_id   '' for none
ARGV 5 info        opaque, for the log
ARGV 6 fingerprint of the decoded call; '' without a key
ARGV 7 ttl_ms      life of an idempotency record
ARGV 8 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 9 bytes_max   bound of this partition's idempotency records
ARGV 10 count      how many feature fields follow
ARGV 11 fields     see include/call.lua; then the number of features and the features
ANSWER OK id now applied[] dropped[] held[] blobs[] entity_blobs[] deltas[] slots[]
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL REFUSED RANGE SLOTS
--]]
--- @include "rows"
--- @include "keys"
--- @include "fence"
--- @include "marks"
--- @include "calendar"
--- @include "resets"
--- @include "convert"
--- @include "order"
--- @include "walk"
--- @include "plan"
--- @include "apply"
--- @include "state"
--- @include "receipt"
--- @include "call"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local code
code, now = read_state(KEYS[2], now)
if code == 'MISSING' then return {code} end
local refusal = code and {code}
local mode, fingerprint, ttl_ms = ARGV[3], ARGV[6], tonumber(ARGV[7])
if not refusal and fingerprint ~= '' then
  refusal = recall(KEYS[1], KEYS[5], fingerprint, ARGV[8], ttl_ms, tonumber(ARGV[9]), now)
end

local features, deltas, slots, applied, dropped, held = {}, {}, {}, {}, {}, {}
local at = features_at + 1
for f = 1, refusal and 0 or tonumber(ARGV[features_at]) do
  local amount = tonumber(ARGV[at + 2])
  local w = build_walk(at, amount, now)
  local left = 0
  if amount > 0 then left = plan_spend(w, amount, mode) elseif amount < 0 then left = plan_refund(w, -amount, mode) end
  if not left or not in_range(w) then refusal = {'RANGE', f}
  elseif left > 0 and w.truncated then refusal = {'SLOTS', f}
  elseif left > 0 and amount > 0 and mode == 'reject' and w.held and not w.boolean then refusal = {'REFUSED', f}
  end
  if refusal then break end
  apply(w, deltas, slots, touched)
  held[f] = w.held and (w.boolean and 2 or 1) or 0
  dropped[f] = left
  applied[f] = w.m == 0 and 0 or (amount > 0 and amount - left or amount + left)
  features[#features + 1], features[#features + 2], features[#features + 3] = ARGV[at], amount, applied[f]
  at = at + 4 + 3 * tonumber(ARGV[at + 3])
end

if refusal then
  keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
  return refusal
end
pack_touched()
local customer, entities = shown()
local reply = {now, applied, dropped, held, customer, entities, deltas, slots}
local receipt = fingerprint ~= '' and new_receipt(now, ttl_ms, fingerprint, reply)
local id = append(KEYS[3], ARGV[1], 1, now, entity_id, ARGV[5], features, deltas, slots, {},
  receipt and cmsgpack.pack(receipt) or '')
write_changed(KEYS[2])
if receipt then remember(KEYS[1], KEYS[5], receipt, ttl_ms, id) end
return {'OK', id, now, applied, dropped, held, customer, entities, deltas, slots}
