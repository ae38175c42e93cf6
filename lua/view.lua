--[[
view: a customer's whole state, after what was due.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 carry_debts 1 where overage of free buckets outlives a reset
ARGV 4 quiet       1 to only do what is due
ANSWER OK now fields[]
CODES STALE MISSING
--]]
--- @include "rows"
--- @include "keys"
--- @include "ids"
--- @include "fence"
--- @include "calendar"
--- @include "convert"
--- @include "order"
--- @include "edit"
--- @include "state"
--- @include "resets"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local fields = redis.call('HGETALL', KEYS[2])
if #fields == 0 then return {'MISSING'} end
for i = 1, #fields, 2 do
  if fields[i] == 'h' then header = unpack_header(fields[i + 1]) end
end
if has(header[7], ABSENT) then return {'MISSING'} end
now = math.max(now, header[6])
for i = 1, #fields, 2 do
  local kind = string.sub(fields[i], 1, 2)
  if kind == 'b:' or kind == 'x:' then adopt(fields[i], fields[i + 1], now) end
end
keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
if ARGV[4] == '1' then return {'OK', now, {}} end
if #resets > 0 then
  for i = 1, #fields, 2 do
    if fields[i] == 'h' then fields[i + 1] = pack_header(header)
    elseif by_name[fields[i]] then fields[i + 1], by_name[fields[i]] = raws[by_name[fields[i]]], nil end
  end
  -- A reset may have given an entity buckets of a feature it had none of.
  for name, blob in pairs(by_name) do
    if raws[blob] ~= '' then fields[#fields + 1], fields[#fields + 2] = name, raws[blob] end
  end
end
return {'OK', now, fields}
