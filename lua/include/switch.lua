-- What moves from buckets that leave to those that come when plans switch: usage, what is left,
-- rollovers and debts. Docs: docs/balances.md, "Plans over time".
local note_slots, carry, take_rollovers, pay_debts, lower
do -- a script may have 200 locals

-- The rows of a bucket that slots are written onto, by entity, to be noted once the bucket is.
function note_slots(row)
  for _, slot in ipairs(step.slots_after) do note_slot(slot[1], find_slot(slot[1], row[1]), slot[2]) end
end

-- Takes `used` units from an entity's share of a new per-entity row; below zero too.
local function use_slot(feature_id, row, entity_id, used)
  local x = get(slot_field(feature_id, entity_id), now)
  local s = find_slot(x, row[1])
  local before = s and x[s + BALANCE] or row[1 + GRANTED]
  put_slot(x, row[1], before - used, row[1 + NEXT_RESET], 0, 0)
  row[1 + BALANCE] = row[1 + BALANCE] - used
  row[1 + OVER] = row[1 + OVER] + math.max(0, used - before) - math.max(0, -before)
  step.slots_after[#step.slots_after + 1] = {x, entity_id}
end

-- Moves the usage of slots of the bucket at blob[o] onto those of a new per-entity row.
local function carry_slots(feature_id, blob, o, row)
  for _, id in ipairs(present_entities(row[1 + ENTITY_FEATURE])) do
    local x = get(slot_field(feature_id, id), now)
    local s = find_slot(x, blob[o])
    if s and x[s + PERIOD] == blob[o + NEXT_RESET] and x[s + BALANCE] ~= blob[o + GRANTED] then
      use_slot(feature_id, row, id, blob[o + GRANTED] - x[s + BALANCE])
    end
  end
end

-- Spreads usage that no entity owns over the slots of a new per-entity row, in the order in which
-- they are spent: down to zero, the rest below zero on the first. Returns whether there is one.
local function spread_on_slots(feature_id, row, used)
  local ids = present_entities(row[1 + ENTITY_FEATURE])
  if #ids == 0 then return false end
  for _, id in ipairs(ids) do
    local x = get(slot_field(feature_id, id), now)
    local s = find_slot(x, row[1])
    local some = math.min(used, math.max(0, s and x[s + BALANCE] or row[1 + GRANTED]))
    if some > 0 then
      use_slot(feature_id, row, id, some)
      used = used - some
    end
  end
  if used ~= 0 then use_slot(feature_id, row, ids[1], used) end
  return true
end

-- Everything that was used of the bucket at blob[o].
local function used_of(blob, o)
  if has(blob[o + FLAGS], UNLIMITED) then return blob[o + GRANTED] * USED_HIGH_UNIT - blob[o + BALANCE] end
  local times = has(blob[o + FLAGS], PER_ENTITY) and blob[o + SLOTS] or 1
  return blob[o + GRANTED] * times - blob[o + BALANCE]
end

-- Usage of the feature's listed buckets, moved on to the new row; never floored. To and from what
-- is unlimited only occupied units move: what was spent there nobody counts.
function carry(feature_id, blob, row, numbers)
  for _, no in ipairs(numbers) do
    local o = find_row(blob, no)
    if o then
      local from, to = blob[o + FLAGS], row[1 + FLAGS]
      local used = math.max(-MAX, math.min(MAX, used_of(blob, o)))
      if has(from, UNLIMITED) and not has(to, CONTINUOUS) then
        used = 0
      elseif has(to, UNLIMITED) then
        if has(to, CONTINUOUS) and used > 0 then count_unlimited(row, 1, used) end
      elseif not has(to, PER_ENTITY) then
        row[1 + BALANCE] = math.max(-MAX, math.min(MAX, row[1 + BALANCE] - used))
        step.carried[no] = true
      elseif has(from, PER_ENTITY) and not has(from, UNLIMITED) and blob[o + ENTITY_FEATURE] == row[1 + ENTITY_FEATURE] then
        carry_slots(feature_id, blob, o, row)
        step.carried[no] = true
      else
        step.carried[no] = spread_on_slots(feature_id, row, used)
      end
    end
  end
end

-- Trims what entities have of the rollover at blob[e] to what `room` leaves each of them, and hands
-- it to the new per-entity row.
local function take_slot_rollover(feature_id, blob, e, row, room)
  for _, id in ipairs(present_entities(row[1 + ENTITY_FEATURE])) do
    local x = get(slot_field(feature_id, id), now)
    local s = find_slot(x, blob[e])
    if s then
      local left = room[id] or rollover_max(row, 1)
      local less = x[s + BALANCE] - math.min(left, x[s + BALANCE])
      room[id] = left - x[s + BALANCE] + less
      if less > 0 then
        x[s + BALANCE], x[s + SLOT_GRANTED] = x[s + BALANCE] - less, x[s + SLOT_GRANTED] - less
        blob[e + BALANCE], blob[e + PREPAID] = blob[e + BALANCE] - less, blob[e + PREPAID] - less
        note_slot(x, s, id)
      end
    end
  end
end

-- Rollovers of the listed buckets that come along to the new row, newest first up to its maximum:
-- those of a grant per entity to another one, the others to a shared one.
function take_rollovers(feature_id, blob, row, numbers)
  if row[1 + ROLL_LENGTH] < 0 or #numbers == 0 then return end
  local per_entity, room, rooms, leaving = has(row[1 + FLAGS], PER_ENTITY), rollover_max(row, 1), {}, {}
  for _, no in ipairs(numbers) do leaving[no] = true end
  for e = 3 + (blob[2] - 1) * ROW_WIDTH, 3, -ROW_WIDTH do
    local flags = blob[e + FLAGS]
    if has(flags, ROLLOVER) and leaving[blob[e + PARENT]] and usable(blob, e, now) and has(flags, PER_ENTITY) == per_entity
      and blob[e + ENTITY_FEATURE] == row[1 + ENTITY_FEATURE] then
      if per_entity then
        take_slot_rollover(feature_id, blob, e, row, rooms)
      else
        local less = blob[e + BALANCE] - math.min(room, blob[e + BALANCE])
        blob[e + BALANCE], blob[e + GRANTED] = blob[e + BALANCE] - less, blob[e + GRANTED] - less
        room = room - blob[e + BALANCE]
      end
      if blob[e + BALANCE] > 0 then
        blob[e + PARENT], blob[e + PLAN], blob[e + ITEM] = row[1], row[1 + PLAN], row[1 + ITEM]
      end
      note_row(feature_id, blob, e)
    end
  end
end

-- The new row first pays the feature's debts, in spending order; those of `leaving` buckets are not
-- the customer's for long.
function pay_debts(feature_id, blob, row, leaving)
  local gone_soon = {}
  for _, no in ipairs(leaving) do gone_soon[no] = true end
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local balance = blob[o + BALANCE]
    if balance < 0 and row[1 + BALANCE] > 0 and usable(blob, o, now) and not gone_soon[blob[o]]
      and not has(blob[o + FLAGS], UNLIMITED) and not has(blob[o + FLAGS], PER_ENTITY) then
      local paid = math.min(-balance, row[1 + BALANCE])
      blob[o + BALANCE], row[1 + BALANCE] = balance + paid, row[1 + BALANCE] - paid
      note_row(feature_id, blob, o)
    end
  end
end

-- A debt of the bucket at blob[o] lowers the row `target` instead; of a grant per entity slot by slot
-- where both are. Returns whether it did.
function lower(feature_id, blob, o, target, debt)
  local t = find_row(blob, target)
  if not t or has(blob[t + FLAGS], UNLIMITED) then return false end
  if not has(blob[t + FLAGS], PER_ENTITY) then
    blob[t + BALANCE] = math.max(-MAX, blob[t + BALANCE] - debt)
    note_row(feature_id, blob, t)
    return true
  end
  local row = {}
  for i = 0, ROW_WIDTH - 1 do row[i + 1] = blob[t + i] end
  step.slots_after = {}
  if not has(blob[o + FLAGS], PER_ENTITY) then
    if not spread_on_slots(feature_id, row, debt) then return false end
  else
    for _, id in ipairs(present_entities(blob[o + ENTITY_FEATURE])) do
      local x = get(slot_field(feature_id, id), now)
      local s = find_slot(x, blob[o])
      if s and x[s + PERIOD] == blob[o + NEXT_RESET] and x[s + BALANCE] < 0 then
        use_slot(feature_id, row, id, -x[s + BALANCE])
      end
    end
  end
  blob[t + BALANCE], blob[t + OVER] = row[1 + BALANCE], row[1 + OVER]
  note_row(feature_id, blob, t)
  note_slots(row)
  return true
end

end
