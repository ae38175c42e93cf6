--[[
project: applies the next steps of a customer's structure, each over the one before it.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 locks       its open holds by their end
KEYS 6 holds       the partition's open holds by their end
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 carry_debts 1 where overage of free buckets outlives a reset
ARGV 4 cid         the customer's internal id
ARGV 5 customer_id its name
ARGV 6 steps       the steps, msgpack {v, at, ops}, one argument each, in order
ANSWER OK version refused[] | GAP version | OTHER cid
CODES STALE MISSING OTHER GAP
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
--- @include "walk"
--- @include "plan"
--- @include "apply"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local customer_key, entities_key = KEYS[2], KEYS[4]
local packed_header = redis.call('HGET', customer_key, 'h')
if not packed_header then return {'MISSING'} end
header = unpack_header(packed_header)
if header[2] ~= tonumber(ARGV[4]) then return {'OTHER', header[2]} end
if has(header[7], DEAD) then return {'OK', header[3], {}} end
now = math.max(now, header[6])

-- What the steps change, in memory until every one is worked out.
local members, removed, gone, step = {}, {}, false, nil

local function get_plain(field)
  if plain_writes[field] == nil then plain_writes[field] = redis.call('HGET', customer_key, field) or false end
  return plain_writes[field]
end

local function get_list(field)
  local raw = get_plain(field)
  return raw and cmsgpack.unpack(raw) or {}
end

-- Adds to (or takes from) a list field kept as a set.
local function put_in_list(field, value, present)
  local list, kept = get_list(field), {}
  for _, item in ipairs(list) do if item ~= value then kept[#kept + 1] = item end end
  if present then kept[#kept + 1] = value end
  plain_writes[field] = #kept > 0 and cmsgpack.pack(kept) or false
end

-- The entities of a feature with the steps so far.
local function present_entities(feature_id)
  local ids, seen = {}, {}
  for _, id in ipairs(entities_of(feature_id)) do
    local member = entity_member(feature_id, id)
    if members[member] ~= false then ids[#ids + 1] = id end
    seen[member] = true
  end
  for member, present in pairs(members) do
    if present and not seen[member] and string.sub(member, 1, #feature_id + 1) == entity_member(feature_id, '') then
      ids[#ids + 1] = string.sub(member, #feature_id + 2)
    end
  end
  return ids
end

local function field_of(feature_id, entity_id)
  return entity_id == '' and bucket_field(feature_id) or slot_field(feature_id, entity_id)
end

local function note(change) step.changes[#step.changes + 1] = change end

-- Notes how the row at blob[o] now is.
local function note_row(feature_id, blob, o)
  local row = {}
  for i = 0, ROW_WIDTH - 1 do row[i + 1] = blob[o + i] end
  touched[blob] = true
  note({'=', feature_id, row})
end

local function note_slot(x, s, entity_id)
  touched[x] = true
  note({'s', x[s], entity_id, x[s + BALANCE], x[s + PERIOD], x[s + SLOT_GRANTED], x[s + SLOT_HELD]})
end

local respend
--- @include "switch"
--- @include "structure"
--- @include "corrections"

local TOLD_MAX = 64

-- Whether live numbers may not allow a step.
local function may_be_refused(operations)
  for _, op in ipairs(operations) do
    if op[1] == 'set' or op[1] == 'grant' or op[1] == 'dates' or op[1] == 'recalc' or (op[1] == 'drop' and op[5] == 1)
      or (op[1] == 'entity' and #operations > 1) then
      return true
    end
  end
  return false
end

-- What such a step finds; `raws` then has every bucket as it is now.
local function keep_state()
  pack_touched()
  local plain, present = {}, {}
  for field, value in pairs(plain_writes) do plain[field] = value end
  for member, is_there in pairs(members) do present[member] = is_there end
  return plain, present
end

-- Undoes what a refused step did, but for resets that were due.
local function back_to(plain, present)
  for i = 1, known do
    local blob, before = blobs[i], raws[blobs[i]]
    local found = before ~= '' and unpack_blob(before) or new_blob()
    for key in pairs(blob) do blob[key] = nil end
    for key, value in pairs(found) do blob[key] = value end
    if before == '' then touched[blob] = nil end
  end
  for field in pairs(plain_writes) do plain_writes[field] = plain[field] end
  members = present
  step.changes, step.features = {}, {}
end

-- Keeps why a step was refused: whoever decided it may not be the one who brings it here.
local function tell(refused_version, why)
  local told = get_list('j')
  told[#told + 1], told[#told + 2] = refused_version, why
  while #told > TOLD_MAX do table.remove(told, 1) end
  plain_writes.j = cmsgpack.pack(told)
end

local steps, refused = {}, {}
local version = header[3]
for i = 6, #ARGV do
  local decoded = cmsgpack.unpack(ARGV[i])
  if decoded.v > version + 1 then return {'GAP', version} end
  if decoded.v == version + 1 and not gone then
    step = {changes = {}, features = {}, carried = {}, refused = 0}
    local kept, present
    if may_be_refused(decoded.ops) then kept, present = keep_state() end
    for _, op in ipairs(decoded.ops) do
      if step.refused == 0 then ops[op[1]](op) end
    end
    if step.refused > 0 and kept then back_to(kept, present) end
    for _, op in ipairs(step.refused == 1 and kept and decoded.ops or {}) do
      if op[1] == 'entity' then note({'e!', op[2], op[3]}) end
    end
    if step.refused > 1 then tell(decoded.v, step.refused) end
    version = decoded.v
    step.version = version
    step.resets, step.reset_changes, resets, reset_changes = resets, reset_changes, {}, {}
    steps[#steps + 1] = step
    refused[#refused + 1] = step.refused
  end
end

pack_touched()
for _, one in ipairs(steps) do
  header[3], resets, reset_changes, changes = one.version, one.resets, one.reset_changes, one.changes
  append(KEYS[3], ARGV[1], 3, now, '', '', one.features, '')
end
if gone then
  -- What stays says that the customer is gone until SQL has its deletion too.
  forget_holds(KEYS[5], KEYS[6], ARGV[5])
  redis.call('DEL', customer_key, entities_key, KEYS[5])
  header[7] = DEAD
  redis.call('HSET', customer_key, 'h', pack_header(header))
  return {'OK', version, refused}
end
if #steps > 0 then
  if has(header[7], LOADING) then header[7] = header[7] - LOADING end
  write_changed(customer_key)
  for field in pairs(removed) do redis.call('HDEL', customer_key, field) end
  for member, present in pairs(members) do
    if present then redis.call('ZADD', entities_key, 0, member) else redis.call('ZREM', entities_key, member) end
  end
end
return {'OK', version, refused}
