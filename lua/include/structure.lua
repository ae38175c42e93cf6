-- What steps do to a customer's structure: buckets and entities that come and go, and live usage
-- that moves from one to the other. An operation is an array, its name first: sidecar/billing/steps.py.
local ops = {}

local function put_row(feature_id, blob, row)
  insert_row(blob, row)
  touched[blob] = true
  note({'+', feature_id, row})
end

function ops.add(op)
  local feature_id, row, pays, rolls_from, leaving = op[2], op[3], op[7] == 1, op[8] or {}, op[9] or {}
  local blob = get(field_of(feature_id, row[1 + ENTITY]), now)
  step.slots_after = {}
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
  carry(feature_id, blob, row, op[4])
  if row[1 + ENTITY] ~= '' then
    put_in_list('q', feature_id, true)
    put_in_list(attached_field(feature_id), row[1 + ENTITY], true)
  end
  if pays and not has(row[1 + FLAGS], PER_ENTITY) then pay_debts(feature_id, blob, row, leaving) end
  take_rollovers(feature_id, blob, row, rolls_from)
  put_row(feature_id, blob, row)
  note_slots(row)
end

-- What is left on the listed buckets becomes a loose row, that of a grant per entity in one; what
-- open holds have of them it has room for, unless that went along as usage. A debt lowers the row `target` and is then not owed. The
-- buckets are to be dropped by the same step.
function ops.left(op)
  local feature_id, target, row = op[2], op[4], op[5]
  local blob, sum, held = get(field_of(feature_id, row[1 + ENTITY]), now), 0, 0
  for _, no in ipairs(op[3]) do
    local o = find_row(blob, no)
    if o and usable(blob, o, now) and not has(blob[o + FLAGS], UNLIMITED) then
      local debt = has(blob[o + FLAGS], PER_ENTITY) and blob[o + OVER] or math.max(0, -blob[o + BALANCE])
      local rest = blob[o + BALANCE] + debt
      if row[1 + EXPIRES] == 0 then row[1 + EXPIRES] = blob[o + NEXT_RESET] end
      sum = math.min(MAX, sum + rest)
      if not (step.carried[no] or has(blob[o + FLAGS], PER_ENTITY)) then held = held + math.max(0, blob[o + HELD] - debt) end
      if debt > 0 and lower(feature_id, blob, o, target, debt) then step.carried[no] = true end
    end
  end
  if sum > 0 or held > 0 then
    row[1 + BALANCE], row[1 + GRANTED] = sum, math.min(MAX, sum + held)
    if row[1 + ENTITY] ~= '' then
      put_in_list('q', feature_id, true)
      put_in_list(attached_field(feature_id), row[1 + ENTITY], true)
    end
    put_row(feature_id, blob, row)
  end
end

-- Takes the row at blob[o] out, with its slots.
local function drop_row(feature_id, blob, o)
  local no, flags, balance, owed = blob[o], blob[o + FLAGS], blob[o + BALANCE], 0
  if has(flags, PER_ENTITY) then
    if has(flags, USAGE_ALLOWED) and not step.carried[no] then owed = blob[o + OVER] end
    for _, id in ipairs(present_entities(blob[o + ENTITY_FEATURE])) do
      local x = get(slot_field(feature_id, id), now)
      if remove_slot(x, no) then touched[x] = true end
    end
  elseif has(flags, USAGE_ALLOWED) and balance < 0 and not step.carried[no] then
    owed = -balance
  end
  remove_row(blob, o)
  touched[blob] = true
  note({'-', feature_id, no, balance, owed})
end

local function drop_bucket(feature_id, blob, no)
  for o = 3 + (blob[2] - 1) * ROW_WIDTH, 3, -ROW_WIDTH do
    if blob[o] == no or blob[o + PARENT] == no then drop_row(feature_id, blob, o) end
  end
end

function ops.drop(op)
  local feature_id, no, entity_id = op[2], op[3], op[4]
  local blob = get(field_of(feature_id, entity_id), now)
  local o = find_row(blob, no)
  if not o then return end
  if op[5] == 1 and respend(feature_id, blob, o) then return end
  drop_bucket(feature_id, blob, no)
  if entity_id ~= '' and blob[2] == 0 then put_in_list(attached_field(feature_id), entity_id, false) end
end

-- Tracks `amount` of the feature itself, customer level; returns whether it was taken.
local function take_seat(feature_id, amount)
  local blob, w = get(bucket_field(feature_id), now), new_walk()
  w.id[0] = feature_id
  add_customer_rows(w, blob, 0, now, true)
  if w.m == 0 then return true end
  local left = amount > 0 and plan_spend(w, amount, 'cap') or amount < 0 and plan_refund(w, -amount, 'cap')
  if amount > 0 and left ~= 0 or not in_range(w) then return false end
  local paid = {}
  apply(w, paid)
  step.features[#step.features + 1] = {feature_id, amount, amount < 0 and amount + (left or 0) or amount, paid}
  return true
end

-- Whether the sum of every per-entity bucket has room for one more share of a new entity.
local function shares_fit(entity_feature)
  for _, feature_id in ipairs(get_list('p')) do
    local blob = get(bucket_field(feature_id), now)
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      if has(blob[o + FLAGS], PER_ENTITY) and bit.band(blob[o + FLAGS], UNLIMITED + ROLLOVER) == 0
        and blob[o + ENTITY_FEATURE] == entity_feature then
        local full = blob[o + GRANTED] * (blob[o + SLOTS] + 1)
        if full > MAX or blob[o + BALANCE] + blob[o + GRANTED] > MAX then return false end
      end
    end
  end
  return true
end

-- Opens (sign 1) or closes (sign -1) an entity's slot in every per-entity bucket of its feature.
local function move_slots(entity_id, entity_feature, sign)
  for _, feature_id in ipairs(get_list('p')) do
    local blob = get(bucket_field(feature_id), now)
    local x = sign < 0 and get(slot_field(feature_id, entity_id), now)
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      local flags = blob[o + FLAGS]
      if has(flags, PER_ENTITY) and blob[o + ENTITY_FEATURE] == entity_feature then
        local s = x and find_slot(x, blob[o])
        touched[blob] = true
        if has(flags, ROLLOVER) then
          if s then
            blob[o + BALANCE], blob[o + PREPAID] = blob[o + BALANCE] - x[s + BALANCE], blob[o + PREPAID] - x[s + SLOT_GRANTED]
            note({'r', blob[o], -x[s + BALANCE], -x[s + SLOT_GRANTED]})
          end
        else
          local balance = blob[o + GRANTED]
          if s and x[s + PERIOD] == blob[o + NEXT_RESET] then balance = x[s + BALANCE] end
          if has(flags, UNLIMITED) then balance = 0 end
          local over = sign * math.max(0, -balance)
          blob[o + SLOTS] = blob[o + SLOTS] + sign
          blob[o + BALANCE] = blob[o + BALANCE] + sign * balance
          blob[o + OVER] = blob[o + OVER] + over
          note({'~', feature_id, blob[o], sign * balance, 0, sign, over})
        end
      end
    end
  end
end

function ops.entity(op)
  local entity_id, feature_id = op[2], op[3]
  if get_plain(entity_field(entity_id)) then return end
  if not shares_fit(feature_id) or not take_seat(feature_id, op[4]) then
    note({'e!', entity_id, feature_id})
    step.refused = 1
    return
  end
  plain_writes[entity_field(entity_id)] = feature_id
  plain_writes[count_field(feature_id)] = string.format('%d', tonumber(get_plain(count_field(feature_id)) or 0) + 1)
  members[entity_member(feature_id, entity_id)] = true
  move_slots(entity_id, feature_id, 1)
  note({'e+', entity_id, feature_id})
end

function ops.unentity(op)
  local entity_id, feature_id = op[2], op[3]
  if not get_plain(entity_field(entity_id)) then return end
  take_seat(feature_id, -op[4])
  move_slots(entity_id, feature_id, -1)
  for _, list in ipairs({'p', 'q'}) do
    for _, id in ipairs(get_list(list)) do
      local blob = get(slot_field(id, entity_id), now)
      for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
        local owed = has(blob[o + FLAGS], USAGE_ALLOWED) and math.max(0, -blob[o + BALANCE]) or 0
        note({'-', id, blob[o], blob[o + BALANCE], owed})
      end
      blob[2], removed[slot_field(id, entity_id)] = 0, true
      put_in_list(attached_field(id), entity_id, false)
      for _, field in ipairs({own_caps_field(id, entity_id), own_window_field(id, entity_id)}) do
        if get_plain(field) then plain_writes[field] = false end
      end
    end
  end
  plain_writes[entity_field(entity_id)] = false
  plain_writes[count_field(feature_id)] = string.format('%d', tonumber(get_plain(count_field(feature_id)) or 1) - 1)
  members[entity_member(feature_id, entity_id)] = false
  note({'e-', entity_id})
end

function ops.delete()
  gone = true
  note({'x'})
end

-- Caps in force for a feature (of one entity); '' for none.
function ops.caps(op)
  local field = op[3] == '' and caps_field(op[2]) or own_caps_field(op[2], op[3])
  plain_writes[field] = op[4] ~= '' and op[4] or false
  if op[4] == '' and op[3] ~= '' then plain_writes[own_window_field(op[2], op[3])] = false end
  if op[4] ~= '' and not has(header[7], CAPS) then header[7] = header[7] + CAPS end
  note({'c', op[2], op[3], op[4]})
end

-- Takes the rows whose numbers are in `gone` out, in one pass however many they are.
local function remove_rows(blob, gone)
  local at, size, slots_at, rows = 3, #blob, slot_count_at(blob), 0
  for o = 3, slots_at - 1, ROW_WIDTH do
    if not gone[blob[o]] then
      for i = 0, ROW_WIDTH - 1 do blob[at + i] = blob[o + i] end
      at, rows = at + ROW_WIDTH, rows + 1
    end
  end
  for i = slots_at, size do blob[at + i - slots_at] = blob[i] end
  for i = size - (slots_at - at) + 1, size do blob[i] = nil end
  blob[2] = rows
end

-- Puts rows in where they are spent, in one pass.
local function insert_rows(blob, rows)
  table.sort(rows, function(a, b) return spends_before(a, 1, b, 1) end)
  local from, at, o, r, slots_at = {}, 3, 3, 1, slot_count_at(blob)
  for i = 3, #blob do from[i] = blob[i] end
  local size = #blob
  while o < slots_at or rows[r] do
    local row, first = from, o
    if rows[r] and not (o < slots_at and spends_before(from, o, rows[r], 1)) then
      row, first, r = rows[r], 1, r + 1
    else
      o = o + ROW_WIDTH
    end
    for i = 0, ROW_WIDTH - 1 do blob[at + i] = row[first + i] end
    at = at + ROW_WIDTH
  end
  for i = slots_at, size do blob[at + i - slots_at] = from[i] end
  blob[2] = blob[2] + #rows
end

-- Buckets that are used up leave the hot state.
function ops.archive(op)
  local blob, wanted, gone = get(field_of(op[2], op[3]), now), {}, {}
  for _, no in ipairs(op[4]) do wanted[no] = true end
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    -- 363: unlimited, pay-per-use, continuous, per entity, boolean or a rollover
    if wanted[blob[o]] and blob[o + BALANCE] == 0 and blob[o + HELD] == 0 and blob[o + INTERVAL] == 0
      and bit.band(blob[o + FLAGS], 363) == 0 and blob[o + EXPIRES] == 0 then
      local left = blob.archived
      left[1], left[2], left[3] = left[1] + 1, left[2] + blob[o + GRANTED], left[3] + blob[o + PREPAID]
      gone[blob[o]], touched[blob] = true, true
      note({'z', blob[o], 1})
    end
  end
  remove_rows(blob, gone)
end

-- And come back when a refund may need them.
function ops.restore(op)
  local coming = {}
  for _, row in ipairs(op[3]) do
    local blob = get(field_of(op[2], row[1 + ENTITY]), now)
    if not find_row(blob, row[1]) then
      local left = blob.archived
      left[1], left[2], left[3] = left[1] - 1, left[2] - row[1 + GRANTED], left[3] - row[1 + PREPAID]
      coming[blob] = coming[blob] or {}
      table.insert(coming[blob], row)
      touched[blob] = true
      note({'z', row[1], 0})
    end
  end
  for blob, rows in pairs(coming) do insert_rows(blob, rows) end
end
