--[[
project: applies the next steps of a customer's structure, each over the one before it.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 cid         the customer's internal id
ARGV 4 steps       the steps, msgpack {v, at, ops}, one argument each, in order
ANSWER OK version refused[] | GAP version | OTHER cid
CODES STALE MISSING OTHER GAP
--]]
--- @include "rows"
--- @include "keys"
--- @include "ids"
--- @include "fence"
--- @include "calendar"
--- @include "resets"
--- @include "convert"
--- @include "order"
--- @include "walk"
--- @include "plan"
--- @include "apply"
--- @include "state"
local now = fence(KEYS[1], ARGV[1], ARGV[2])
if not now then return {'STALE'} end
local customer_key, entities_key = KEYS[2], KEYS[4]
local packed_header = redis.call('HGET', customer_key, 'h')
if not packed_header then return {'MISSING'} end
header = unpack_header(packed_header)
if header[2] ~= tonumber(ARGV[3]) then return {'OTHER', header[2]} end
if header[7] == 1 then return {'OK', header[3], {}} end
now = math.max(now, header[6])

-- What the steps change, in memory until every one is worked out.
local by_field, plain, members, removed, gone = {}, {}, {}, {}, false

local function get(field)
  if not by_field[field] then by_field[field] = adopt(field, redis.call('HGET', customer_key, field), now) end
  return by_field[field]
end

local function get_plain(field)
  if plain[field] == nil then plain[field] = redis.call('HGET', customer_key, field) or false end
  return plain[field]
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
  plain[field] = #kept > 0 and cmsgpack.pack(kept) or false
end

local function entities_of(feature_id)
  local ids, seen = {}, {}
  for _, member in ipairs(redis.call('ZRANGEBYLEX', entities_key,
    '[' .. entity_member(feature_id, ''), '(' .. entity_member(feature_id, '\255'))) do
    if members[member] ~= false then ids[#ids + 1] = string.sub(member, #feature_id + 2) end
    seen[member] = true
  end
  for member, present in pairs(members) do
    if present and not seen[member] and string.sub(member, 1, #feature_id + 1) == entity_member(feature_id, '') then
      ids[#ids + 1] = string.sub(member, #feature_id + 2)
    end
  end
  return ids
end

local function insert_row(blob, row)
  local at = 3
  while at < slot_count_at(blob) and spends_before(blob, at, row, 1) do at = at + ROW_WIDTH end
  for i = #blob, at, -1 do blob[i + ROW_WIDTH] = blob[i] end
  for i = 1, ROW_WIDTH do blob[at + i - 1] = row[i] end
  blob[2] = blob[2] + 1
  touched[blob] = true
end

local function remove_columns(blob, o, width)
  local size = #blob
  for i = o, size do blob[i] = blob[i + width] end
  touched[blob] = true
end

local function remove_slot(blob, no)
  local o = find_slot(blob, no)
  if not o then return end
  local count_at = slot_count_at(blob)
  remove_columns(blob, o, SLOT_WIDTH)
  blob[count_at] = blob[count_at] - 1
end

local function field_of(feature_id, entity_id)
  return entity_id == '' and bucket_field(feature_id) or slot_field(feature_id, entity_id)
end

-- Usage of the feature's listed buckets, moved on to the new row; never floored.
local function carry(blob, row, numbers, carried)
  for _, no in ipairs(numbers) do
    local o = find_row(blob, no)
    if o and not has(blob[o + FLAGS], UNLIMITED) and not has(blob[o + FLAGS], PER_ENTITY)
      and not has(row[1 + FLAGS], UNLIMITED) and not has(row[1 + FLAGS], PER_ENTITY) then
      local balance = row[1 + BALANCE] - (blob[o + GRANTED] - blob[o + BALANCE])
      row[1 + BALANCE] = math.max(-MAX, math.min(MAX, balance))
      carried[no] = true
    end
  end
end

local ops = {}

function ops.add(op, step)
  local feature_id, row = op[2], op[3]
  local blob = get(field_of(feature_id, row[1 + ENTITY]))
  carry(blob, row, op[4], step.carried)
  local o = op[5] > 0 and find_row(blob, op[5])
  if o and blob[o + NEXT_RESET] > 0 then
    row[1 + ANCHOR], row[1 + NEXT_RESET] = blob[o + ANCHOR], blob[o + NEXT_RESET]
  elseif row[1 + NEXT_RESET] > 0 and row[1 + NEXT_RESET] <= now then
    row[1 + NEXT_RESET] = next_reset(row[1 + ANCHOR], row[1 + INTERVAL], row[1 + INTERVAL_COUNT], now)
  end
  if has(row[1 + FLAGS], PER_ENTITY) then
    row[1 + SLOTS] = tonumber(get_plain(count_field(row[1 + ENTITY_FEATURE])) or 0)
    row[1 + BALANCE] = has(row[1 + FLAGS], UNLIMITED) and 0 or row[1 + SLOTS] * row[1 + GRANTED]
    put_in_list('p', feature_id, true)
  end
  if row[1 + ENTITY] ~= '' then
    put_in_list('q', feature_id, true)
    put_in_list(attached_field(feature_id), row[1 + ENTITY], true)
  end
  insert_row(blob, row)
  step.changes[#step.changes + 1] = {'+', feature_id, row}
end

function ops.drop(op, step)
  local feature_id, no, entity_id = op[2], op[3], op[4]
  local blob = get(field_of(feature_id, entity_id))
  local o = find_row(blob, no)
  if not o then return end
  local flags, balance, owed = blob[o + FLAGS], blob[o + BALANCE], 0
  if has(flags, PER_ENTITY) then
    if has(flags, USAGE_ALLOWED) then owed = blob[o + OVER] end
    for _, id in ipairs(entities_of(blob[o + ENTITY_FEATURE])) do
      remove_slot(get(slot_field(feature_id, id)), no)
    end
  elseif has(flags, USAGE_ALLOWED) and balance < 0 and not step.carried[no] then
    owed = -balance
  end
  remove_columns(blob, o, ROW_WIDTH)
  blob[2] = blob[2] - 1
  if entity_id ~= '' and blob[2] == 0 then put_in_list(attached_field(feature_id), entity_id, false) end
  step.changes[#step.changes + 1] = {'-', feature_id, no, balance, owed}
end

-- Tracks `amount` of the feature itself, customer level; returns whether it was taken.
local function take_seat(feature_id, amount, step)
  local blob, w = get(bucket_field(feature_id)), new_walk()
  add_customer_rows(w, blob, 0, now, true)
  if w.m == 0 then return true end
  local left = amount > 0 and plan_spend(w, amount, 'cap') or amount < 0 and plan_refund(w, -amount, 'cap')
  if amount > 0 and left ~= 0 or not in_range(w) then return false end
  apply(w, step.deltas, step.slots, touched)
  step.features = {feature_id, amount, amount < 0 and amount + (left or 0) or amount}
  return true
end

-- Opens (sign 1) or closes (sign -1) an entity's slot in every per-entity bucket of its feature.
local function move_slots(entity_id, entity_feature, sign, step)
  for _, feature_id in ipairs(get_list('p')) do
    local blob = get(bucket_field(feature_id))
    local x = sign < 0 and get(slot_field(feature_id, entity_id))
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      if has(blob[o + FLAGS], PER_ENTITY) and blob[o + ENTITY_FEATURE] == entity_feature then
        local balance = blob[o + GRANTED]
        local s = x and find_slot(x, blob[o])
        if s and x[s + PERIOD] == blob[o + NEXT_RESET] then balance = x[s + BALANCE] end
        if has(blob[o + FLAGS], UNLIMITED) then balance = 0 end
        local over = sign * math.max(0, -balance)
        blob[o + SLOTS] = blob[o + SLOTS] + sign
        blob[o + BALANCE] = blob[o + BALANCE] + sign * balance
        blob[o + OVER] = blob[o + OVER] + over
        touched[blob] = true
        step.changes[#step.changes + 1] = {'~', feature_id, blob[o], sign * balance, 0, sign, over}
      end
    end
  end
end

function ops.entity(op, step)
  local entity_id, feature_id = op[2], op[3]
  if get_plain(entity_field(entity_id)) then return end
  if not take_seat(feature_id, op[4], step) then
    step.changes[#step.changes + 1] = {'e!', entity_id, feature_id}
    step.refused = 1
    return
  end
  plain[entity_field(entity_id)] = feature_id
  plain[count_field(feature_id)] = string.format('%d', tonumber(get_plain(count_field(feature_id)) or 0) + 1)
  members[entity_member(feature_id, entity_id)] = true
  move_slots(entity_id, feature_id, 1, step)
  step.changes[#step.changes + 1] = {'e+', entity_id, feature_id}
end

function ops.unentity(op, step)
  local entity_id, feature_id = op[2], op[3]
  if not get_plain(entity_field(entity_id)) then return end
  take_seat(feature_id, -op[4], step)
  move_slots(entity_id, feature_id, -1, step)
  for _, list in ipairs({'p', 'q'}) do
    for _, id in ipairs(get_list(list)) do
      local blob = get(slot_field(id, entity_id))
      for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
        local owed = has(blob[o + FLAGS], USAGE_ALLOWED) and math.max(0, -blob[o + BALANCE]) or 0
        step.changes[#step.changes + 1] = {'-', id, blob[o], blob[o + BALANCE], owed}
      end
      blob[2], removed[slot_field(id, entity_id)] = 0, true
      put_in_list(attached_field(id), entity_id, false)
    end
  end
  plain[entity_field(entity_id)] = false
  plain[count_field(feature_id)] = string.format('%d', tonumber(get_plain(count_field(feature_id)) or 1) - 1)
  members[entity_member(feature_id, entity_id)] = false
  step.changes[#step.changes + 1] = {'e-', entity_id}
end

function ops.delete(_, step)
  gone = true
  step.changes[#step.changes + 1] = {'x'}
end

local steps, refused = {}, {}
local version = header[3]
for i = 4, #ARGV do
  local decoded = cmsgpack.unpack(ARGV[i])
  if decoded.v > version + 1 then return {'GAP', version} end
  if decoded.v == version + 1 and not gone then
    local step = {changes = {}, deltas = {}, slots = {}, features = {}, carried = {}, refused = 0}
    for _, op in ipairs(decoded.ops) do ops[op[1]](op, step) end
    version = decoded.v
    step.version = version
    step.resets, resets = resets, {}
    steps[#steps + 1] = step
    refused[#refused + 1] = step.refused
  end
end

pack_touched()
for _, step in ipairs(steps) do
  header[3], resets = step.version, step.resets
  append(KEYS[3], ARGV[1], 3, now, '', '', step.features, step.deltas, step.slots, step.changes, '')
end
if gone then
  -- What stays says that the customer is gone until SQL has its deletion too.
  redis.call('DEL', customer_key, entities_key)
  header[7] = 1
  redis.call('HSET', customer_key, 'h', pack_header(header))
  return {'OK', version, refused}
end
if #steps > 0 then
  write_changed(customer_key)
  for field in pairs(removed) do redis.call('HDEL', customer_key, field) end
  for field, value in pairs(plain) do
    if value then redis.call('HSET', customer_key, field, value) else redis.call('HDEL', customer_key, field) end
  end
  for member, present in pairs(members) do
    if present then redis.call('ZADD', entities_key, 0, member) else redis.call('ZREM', entities_key, member) end
  end
end
return {'OK', version, refused}
