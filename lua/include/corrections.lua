-- What people correct by hand, on live counters: docs/balances.md, "Managing balances". Grants stay
-- what they are, except where said; rollovers, windows and spend limits are not touched.
-- Why a step is refused, and then changes nothing: its buckets are gone, the range, too many slots.
local GONE, OUT_OF_RANGE, TOO_MANY = 2, 3, 4
do -- a script may have 200 locals

-- The listed buckets of a feature as a walk, in the order in which a call spends them: of the customer
-- with every entity's slots, or of one entity, then of the customer.
local function chosen_walk(feature_id, entity_id, numbers)
  local w, wanted, shared = new_walk(), {}, false
  for _, no in ipairs(numbers) do wanted[no] = true end
  local blob = get(bucket_field(feature_id), now)
  if entity_id ~= '' then
    add_entity_rows(w, blob, get(slot_field(feature_id, entity_id), now), entity_id, get_plain(entity_field(entity_id)), 0, now)
    merge(w, 1)
    add_customer_rows(w, blob, 0, now, true)
  else
    add_customer_rows(w, blob, 0, now, true)
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      shared = shared or (wanted[blob[o]] and has(blob[o + FLAGS], PER_ENTITY))
    end
    if shared then
      local from = w.m + 1
      add_all_slots(w, blob, function(id) return get(slot_field(feature_id, id), now) end, 0, now, present_entities)
      merge(w, from, true)
    end
  end
  local kept = 0
  for j = 1, w.m do
    if wanted[w.kt[j][w.ko[j]]] and not has(w.kt[j][w.ko[j] + FLAGS], ROLLOVER) then
      kept = kept + 1
      for _, list in ipairs({w.t, w.o, w.kt, w.ko, w.s, w.x, w.e, w.fresh, w.take}) do list[kept] = list[j] end
    end
  end
  for j = kept + 1, w.m do w.x[j] = nil end
  w.m = kept
  return w
end

-- What the feature's finite buckets of a scope have above zero, and below, each added up.
local function totals(feature_id, entity_id)
  local above, below = 0, 0
  for _, field in ipairs({bucket_field(feature_id), entity_id ~= '' and slot_field(feature_id, entity_id) or nil}) do
    local blob = get(field, now)
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      if not has(blob[o + FLAGS], UNLIMITED) then
        local over = has(blob[o + FLAGS], PER_ENTITY) and blob[o + OVER] or math.max(0, -blob[o + BALANCE])
        above, below = above + blob[o + BALANCE] + over, below + over
      end
    end
  end
  return above, below
end

-- Does `change`, and refuses the step where it takes a sum out of the range of exact numbers.
local function within_range(feature_id, entity_id, change)
  local above, below = totals(feature_id, entity_id)
  change()
  local after, under = totals(feature_id, entity_id)
  if (after > above and after > MAX) or (under > below and under > MAX) then step.refused = OUT_OF_RANGE end
end

-- Sets the balance of entry j, and notes it.
local function set_balance(feature_id, w, j, balance)
  local blob, o, x = w.kt[j], w.ko[j], w.x[j]
  local before = w.t[j][w.o[j] + BALANCE]
  if balance == before then return end
  if not x then
    w.t[j][w.o[j] + BALANCE] = balance
    note_row(feature_id, w.t[j], w.o[j])
    return
  end
  local s = find_slot(x, blob[o])
  local held = s and x[s + PERIOD] == blob[o + NEXT_RESET] and x[s + SLOT_HELD] or 0
  s = put_slot(x, blob[o], balance, blob[o + NEXT_RESET], 0, held)
  note_slot(x, s, w.e[j])
  local over = math.max(0, -balance) - math.max(0, -before)
  blob[o + BALANCE], blob[o + OVER] = blob[o + BALANCE] + balance - before, blob[o + OVER] + over
  touched[blob] = true
  note({'~', feature_id, blob[o], balance - before, 0, 0, over})
end

-- Balances for the entries of a walk after `amount` more: down to zero, the rest below zero on the
-- first; or up: heal, refill, the rest above the grant on the first. nil past the range.
local function spread(w, amount)
  if amount > MAX or amount < -MAX then return nil end
  local balances = {}
  for j = 1, w.m do balances[j] = w.t[j][w.o[j] + BALANCE] end
  local function raise(room_of)
    for j = 1, w.m do
      local more = math.min(amount, math.max(0, room_of(j)))
      balances[j], amount = balances[j] + more, amount - more
    end
  end
  if amount > 0 then
    raise(function(j) return -balances[j] end)
    raise(function(j) return w.kt[j][w.ko[j] + GRANTED] - balances[j] end)
  else
    for j = 1, w.m do
      local less = math.min(-amount, math.max(0, balances[j]))
      balances[j], amount = balances[j] - less, amount + less
    end
  end
  if balances[1] + amount > MAX or balances[1] + amount < -MAX then return nil end
  balances[1] = balances[1] + amount
  return balances
end

local function set_all(feature_id, w, balances)
  for j = 1, w.m do set_balance(feature_id, w, j, balances[j]) end
end

-- Adds `amount` to the entries of a walk, or refuses the step.
local function add_to_all(feature_id, entity_id, w, amount)
  local balances = spread(w, amount)
  if not balances then step.refused = OUT_OF_RANGE return end
  within_range(feature_id, entity_id, function() set_all(feature_id, w, balances) end)
end

-- What an unlimited bucket has counted is `used`, in two parts.
local function set_count(feature_id, blob, o, used)
  blob[o + BALANCE], blob[o + GRANTED] = 0, 0
  count_unlimited(blob, o, used)
  note_row(feature_id, blob, o)
end

function ops.set(op)
  local feature_id, entity_id, what, value = op[2], op[3], op[5], op[6]
  local w = chosen_walk(feature_id, entity_id, op[4])
  if w.truncated then step.refused = TOO_MANY return end
  if w.m == 0 then step.refused = GONE return end
  if has(w.kt[1][w.ko[1] + FLAGS], UNLIMITED) then
    for j = 1, w.m do set_count(feature_id, w.t[j], w.o[j], j == 1 and value or 0) end
    return
  end
  local amount, used, balance = value, 0, 0
  for j = 1, w.m do
    local has_now = w.t[j][w.o[j] + BALANCE]
    balance, used = balance + has_now, used + w.kt[j][w.ko[j] + GRANTED] - has_now
    if math.max(math.abs(balance), math.abs(used)) > MAX then step.refused = OUT_OF_RANGE return end
  end
  if what == 'remaining' then amount = value - balance elseif what == 'usage' then amount = used - value end
  add_to_all(feature_id, entity_id, w, amount)
end

-- The slots that count now of the per-entity bucket at blob[o]: each entity, its blob, and where.
local function live_slots(feature_id, blob, o)
  local found = {}
  for _, id in ipairs(present_entities(blob[o + ENTITY_FEATURE])) do
    local x = get(slot_field(feature_id, id), now)
    local s = find_slot(x, blob[o])
    if s and x[s + PERIOD] == blob[o + NEXT_RESET] then found[#found + 1] = {id, x, s} end
  end
  return found
end

-- The index of a bucket that is to change, or nil, and the step is refused.
local function row_to_change(blob, no)
  local o = find_row(blob, no)
  if not o then
    step.refused = GONE
  elseif has(blob[o + FLAGS], PER_ENTITY) and blob[o + SLOTS] > SLOTS_MAX then
    step.refused = TOO_MANY
  else
    return o
  end
end

-- Changes the included grant of a bucket, and its balance by as much; of a grant per entity, each
-- entity's.
function ops.grant(op)
  local feature_id, no = op[2], op[4]
  local blob = get(field_of(feature_id, op[3]), now)
  local o = row_to_change(blob, no)
  if not o then return end
  local more, times = op[5] - (blob[o + GRANTED] - blob[o + PREPAID]), 1
  if more == 0 then return end
  within_range(feature_id, op[3], function()
    if has(blob[o + FLAGS], PER_ENTITY) then
      times = blob[o + SLOTS]
      for _, slot in ipairs(live_slots(feature_id, blob, o)) do
        local id, x, s = slot[1], slot[2], slot[3]
        local balance = x[s + BALANCE] + more
        if math.abs(balance) > MAX then step.refused = OUT_OF_RANGE end
        blob[o + OVER] = blob[o + OVER] + math.max(0, -balance) - math.max(0, -x[s + BALANCE])
        x[s + BALANCE] = balance
        note_slot(x, s, id)
      end
    end
    blob[o + GRANTED], blob[o + BALANCE] = blob[o + GRANTED] + more, blob[o + BALANCE] + more * times
    if blob[o + GRANTED] > MAX or math.abs(blob[o + BALANCE]) > MAX then step.refused = OUT_OF_RANGE end
    note_row(feature_id, blob, o)
  end)
end

-- Changes when a bucket resets next (which it then counts from) or ends; -1 leaves a date.
function ops.dates(op)
  local feature_id, no = op[2], op[4]
  local blob = get(field_of(feature_id, op[3]), now)
  local o = row_to_change(blob, no)
  if not o then return end
  local row = {}
  for i = 0, ROW_WIDTH - 1 do row[i + 1] = blob[o + i] end
  if op[5] >= 0 then
    if has(blob[o + FLAGS], PER_ENTITY) then
      for _, slot in ipairs(live_slots(feature_id, blob, o)) do
        slot[2][slot[3] + PERIOD] = op[5]
        note_slot(slot[2], slot[3], slot[1])
      end
    end
    row[1 + NEXT_RESET], row[1 + ANCHOR] = op[5], op[5]
  end
  if op[6] >= 0 then row[1 + EXPIRES] = op[6] end
  remove_row(blob, o)
  insert_row(blob, row)
  note_row(feature_id, blob, find_row(blob, no))
end

-- The finite buckets of a scope that nobody pays for, as a walk.
local function unpriced_walk(feature_id, entity_id)
  local numbers = {}
  for _, field in ipairs({bucket_field(feature_id), entity_id ~= '' and slot_field(feature_id, entity_id) or nil}) do
    local blob = get(field, now)
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      if bit.band(blob[o + FLAGS], UNLIMITED + PAID + BOOLEAN + ROLLOVER) == 0 then numbers[#numbers + 1] = blob[o] end
    end
  end
  return chosen_walk(feature_id, entity_id, numbers)
end

-- Where a bucket is below zero, spends all usage again, in order.
function ops.recalc(op)
  local w, below, used = unpriced_walk(op[2], op[3]), false, 0
  if w.truncated then step.refused = TOO_MANY return end
  for j = 1, w.m do
    local balance = w.t[j][w.o[j] + BALANCE]
    below, used = below or balance < 0, used + w.kt[j][w.ko[j] + GRANTED] - balance
    if math.abs(used) > MAX then step.refused = OUT_OF_RANGE return end
  end
  if not below then return end
  local balances, left = {}, used
  for j = 1, w.m do
    local granted = w.kt[j][w.ko[j] + GRANTED]
    local take = math.max(0, math.min(left, granted))
    balances[j], left = granted - take, left - take
  end
  balances[1] = balances[1] - left
  if math.abs(balances[1]) > MAX then step.refused = OUT_OF_RANGE return end
  within_range(op[2], op[3], function() set_all(op[2], w, balances) end)
end

-- The bucket at blob[o] stays as its usage alone: no grant, no resets.
local function keep_debt(feature_id, blob, o, used)
  local no, row = blob[o], {}
  for i = 0, ROW_WIDTH - 1 do row[i + 1] = blob[o + i] end
  row[1 + GRANTED], row[1 + BALANCE], row[1 + PREPAID], row[1 + NEXT_RESET], row[1 + ANCHOR] = 0, -used, 0, 0, 0
  row[1 + INTERVAL], row[1 + INTERVAL_COUNT], row[1 + ROLL_LENGTH] = 0, 1, -1
  for p = 3 + (blob[2] - 1) * ROW_WIDTH, 3, -ROW_WIDTH do
    if blob[p + PARENT] == no then drop_row(feature_id, blob, p) end
  end
  remove_row(blob, find_row(blob, no))
  insert_row(blob, row)
  note_row(feature_id, blob, find_row(blob, no))
end

-- Spends what a bucket that goes had used on what is left for its owner. Returns true where it is not
-- to go: nothing is left, or the step is refused.
respend = function(feature_id, blob, o)
  local flags, entity_id = blob[o + FLAGS], blob[o + ENTITY]
  local used = blob[o + GRANTED] - blob[o + BALANCE]
  if has(flags, UNLIMITED) or has(flags, PER_ENTITY) or has(flags, BOOLEAN) or used <= 0 then return false end
  local numbers = {}
  for _, field in ipairs({bucket_field(feature_id), entity_id ~= '' and slot_field(feature_id, entity_id) or nil}) do
    local left = get(field, now)
    for p = 3, left[2] * ROW_WIDTH, ROW_WIDTH do
      if left[p] ~= blob[o] and not has(left[p + FLAGS], BOOLEAN) then numbers[#numbers + 1] = left[p] end
    end
  end
  local w = chosen_walk(feature_id, entity_id, numbers)
  if w.truncated then step.refused = TOO_MANY return true end
  for j = 1, w.m do
    if has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then
      count_unlimited(w.t[j], w.o[j], used)
      note_row(feature_id, w.t[j], w.o[j])
      return false
    end
  end
  if w.m == 0 then keep_debt(feature_id, blob, o, used) return true end
  add_to_all(feature_id, entity_id, w, -used)
  return step.refused ~= 0
end
end
