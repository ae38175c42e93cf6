-- Due resets, once per period however many callers race: docs/balances.md, "Resets and rollovers".
-- Missed periods are caught up in one step to what resets on time would have left.
local CATCH_UP_MAX = 40

-- What `missed` resets in a row leave of a balance: the balance, how many of the resets found a
-- debt, and what the first after those found unspent. Each later one finds the whole grant.
local function after_resets(balance, start, missed, carried)
  if balance >= 0 then return start, 0, balance end
  if not carried then return start, 0, 0 end
  local debts = start > 0 and math.ceil(-balance / start) or missed
  if debts >= missed then return balance + missed * start, missed, 0 end
  return start, debts, balance + debts * start
end

local function found_unspent(j, start, debts, first)
  if j <= debts then return 0 end
  return j == debts + 1 and first or start
end

-- The most that a bucket's rollovers may hold together.
local function rollover_max(blob, o)
  local percent = blob[o + ROLL_PERCENT]
  if percent >= 0 then return credits_back(blob[o + GRANTED], percent, 1000000) end
  return blob[o + ROLL_MAX] >= 0 and blob[o + ROLL_MAX] or MAX
end

-- The rollovers of bucket `no` that live, soonest-expiring first, as indexes.
local function rollovers_of(blob, no, now)
  local found = {}
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    if blob[o + PARENT] == no and has(blob[o + FLAGS], ROLLOVER) and (blob[o + EXPIRES] == 0 or blob[o + EXPIRES] > now) then
      found[#found + 1] = o
    end
  end
  return found
end

-- The row of a rollover of the bucket at blob[o], made at a reset.
local function rollover_row(blob, o, made_at, expires_at)
  local row = {}
  for i = 0, ROW_WIDTH - 1 do row[i + 1] = blob[o + i] end
  local flags = ROLLOVER
  for _, flag in ipairs({ADD_ON, PER_ENTITY}) do
    if has(blob[o + FLAGS], flag) then flags = flags + flag end
  end
  row[1], row[1 + BALANCE], row[1 + GRANTED], row[1 + FLAGS], row[1 + PURCHASABLE] = header[8], 0, 0, flags, -1
  row[1 + NEXT_RESET], row[1 + EXPIRES], row[1 + ANCHOR], row[1 + INTERVAL], row[1 + INTERVAL_COUNT] = 0, expires_at, 0, 0, 1
  row[1 + PREPAID], row[1 + CREATED], row[1 + OVER], row[1 + PARENT] = 0, made_at, 0, blob[o]
  row[1 + ROLL_LENGTH], row[1 + ROLL_MAX], row[1 + ROLL_PERCENT] = -1, -1, -1
  row[1 + RESET_AT], row[1 + RESET_OVER], row[1 + HELD] = 0, 0, 0
  header[8] = header[8] + 1
  return row
end

do -- a script may have 200 locals

-- The rollovers that the resets at index `first`..`last` make and that still live: newest first, as
-- {which reset, row}; the one that never ends at most once. Existing ones come by `rollovers_of`.
local function rollovers_to_make(blob, o, first, last, now)
  local made, months = {}, blob[o + ROLL_LENGTH]
  local anchor, interval, count = blob[o + ANCHOR], blob[o + INTERVAL], blob[o + INTERVAL_COUNT]
  for k = last, math.max(first, last - CATCH_UP_MAX), -1 do
    local ends = rollover_end(anchor, interval, count, k, months)
    if ends ~= 0 and ends <= now then break end
    made[#made + 1] = {k - first + 1, rollover_row(blob, o, at_index(anchor, interval, count, k), ends)}
    if months == 0 then break end
  end
  return made
end

-- Everything unspent at `missed` resets together, at most MAX.
local function all_unspent(missed, start, debts, first)
  if missed <= debts then return 0 end
  local rest = missed - debts - 1
  if start > 0 and rest > (MAX - first) / start then return MAX end
  return first + rest * start
end

-- A bucket's rollovers, those there are and those to be made, latest end first: {e = index} or
-- {k = which reset, row = row}. A plan switch may have brought some that end later than new ones do.
local function latest_first(blob, existing, made)
  local all, i, j = {}, 1, #existing
  while made[i] or existing[j] do
    local e, ends = existing[j], made[i] and made[i][2][1 + EXPIRES]
    local theirs = e and blob[e + EXPIRES]
    if e and (not ends or theirs == 0 or (ends ~= 0 and theirs > ends)) then
      all[#all + 1], j = {e = e}, j - 1
    else
      all[#all + 1], i = {k = made[i][1], row = made[i][2]}, i + 1
    end
  end
  return all
end

-- The rollover that never ends, of those of an item where none does.
local function never_ending(blob, o, existing)
  local e = existing[#existing]
  return blob[o + ROLL_LENGTH] == 0 and e and blob[e + EXPIRES] == 0 and e or nil
end

-- What the rollovers of the bucket at blob[o] may hold together (of a grant per entity, for each
-- one) before the feature's sums pass the range of exact integers: a reset cannot be refused.
local function headroom(blob, o)
  local left = MAX
  for p = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local flags, own = blob[p + FLAGS], blob[p + PARENT] == blob[o]
    if has(flags, ROLLOVER) and not own then
      left = left - math.max(blob[p + GRANTED], blob[p + PREPAID])
    elseif not has(flags, ROLLOVER) and not has(flags, UNLIMITED) then
      local granted = blob[p + GRANTED] * (has(flags, PER_ENTITY) and blob[p + SLOTS] or 1)
      left = left - math.max(granted, p ~= o and blob[p + BALANCE] or 0)
    end
  end
  return math.max(0, math.floor(left / (has(blob[o + FLAGS], PER_ENTITY) and math.max(1, blob[o + SLOTS]) or 1)))
end

-- Carries what a row found unspent over to its rollovers. `rows` collects those to put in.
local function roll_row(blob, o, first, last, now, debts, unspent, rows)
  local room, start, existing = math.min(rollover_max(blob, o), headroom(blob, o)), blob[o + GRANTED], rollovers_of(blob, blob[o], now)
  local forever, never = blob[o + ROLL_LENGTH] == 0, never_ending(blob, o, existing)
  local made = never and {} or rollovers_to_make(blob, o, first, last, now)
  for _, one in ipairs(latest_first(blob, existing, made)) do
    local had, found = one.e and blob[one.e + BALANCE] or 0, 0
    if forever and (one.row or one.e == never) then
      found = all_unspent(last - first + 1, start, debts, unspent)
    elseif one.row then
      found = found_unspent(one.k, start, debts, unspent)
    end
    local kept = math.min(room, had + found)
    room = room - kept
    if one.e and kept ~= had then
      blob[one.e + BALANCE], blob[one.e + GRANTED] = kept, blob[one.e + GRANTED] + kept - had
      reset_changes[#reset_changes + 1] = {'r', blob[one.e], kept - had, kept - had}
    elseif one.row and kept > 0 then
      one.row[1 + BALANCE], one.row[1 + GRANTED] = kept, kept
      rows[#rows + 1] = one.row
    end
  end
end

-- Resets a grant per entity slot by slot, where rollovers or carried debts need it. Returns the sum
-- of the balances and of the overage after it.
local function reset_slots(blob, o, feature_id, first, last, now, after, rows)
  local no, start, period = blob[o], blob[o + GRANTED], blob[o + NEXT_RESET]
  local rolls, sum, over = blob[o + ROLL_LENGTH] >= 0, 0, 0
  local existing = rolls and rollovers_of(blob, no, now) or {}
  local forever, never = blob[o + ROLL_LENGTH] == 0, never_ending(blob, o, existing)
  local made = rolls and not never and rollovers_to_make(blob, o, first, last, now) or {}
  local most, added = rolls and math.min(rollover_max(blob, o), headroom(blob, o)) or 0, {}
  local all = latest_first(blob, existing, made)
  local carried = ARGV[3] == '1' and not has(blob[o + FLAGS], USAGE_ALLOWED)
  local function put(x, entity_id, row_no, balance, granted)
    local s = find_slot(x, row_no)
    local more = balance - (s and x[s + BALANCE] or 0)
    put_slot(x, row_no, balance, 0, granted, s and x[s + SLOT_HELD] or 0)
    reset_changes[#reset_changes + 1] = {'s', row_no, entity_id, balance, 0, granted, s and x[s + SLOT_HELD] or 0}
    added[row_no] = (added[row_no] or 0) + more
  end
  for _, id in ipairs(entities_of(blob[o + ENTITY_FEATURE])) do
    local x = get(slot_field(feature_id, id), now)
    local s = find_slot(x, no)
    local balance = s and x[s + PERIOD] == period and x[s + BALANCE] or start
    local new, debts, unspent = after_resets(balance, start, last - first + 1, carried)
    local changed = new ~= start
    if changed then
      put_slot(x, no, new, after, 0, 0)
      reset_changes[#reset_changes + 1] = {'s', no, id, new, after, 0, 0}
    end
    sum, over = sum + new, over + math.max(0, -new)
    local room = most
    for _, one in ipairs(all) do
      local no_of = one.e and blob[one.e] or one.row[1]
      local at = find_slot(x, no_of)
      local had, found = at and x[at + BALANCE] or 0, 0
      if forever and (one.row or one.e == never) then
        found = all_unspent(last - first + 1, start, debts, unspent)
      elseif one.row then
        found = found_unspent(one.k, start, debts, unspent)
      end
      local kept = math.min(room, had + found)
      room = room - kept
      if kept ~= had then
        changed = true
        put(x, id, no_of, kept, (at and x[at + SLOT_GRANTED] or 0) + kept - had)
      end
    end
    if changed then due[x], raws[x] = true, pack_blob(x) end
  end
  for _, e in ipairs(existing) do
    local more = added[blob[e]]
    if more and more ~= 0 then
      blob[e + BALANCE], blob[e + PREPAID] = blob[e + BALANCE] + more, blob[e + PREPAID] + more
      reset_changes[#reset_changes + 1] = {'r', blob[e], more, more}
    end
  end
  for _, one in ipairs(made) do
    local more = added[one[2][1]]
    if more then
      one[2][1 + BALANCE], one[2][1 + PREPAID] = more, more
      rows[#rows + 1] = one[2]
    end
  end
  return sum, over
end

-- Resets the due row at blob[o]; `rows` collects rollovers to put in.
local function reset_row(blob, o, feature_id, now, rows)
  local due_at, flags, balance, start = blob[o + NEXT_RESET], blob[o + FLAGS], blob[o + BALANCE], blob[o + GRANTED]
  local anchor, interval, count = blob[o + ANCHOR], blob[o + INTERVAL], blob[o + INTERVAL_COUNT]
  local after = next_reset(anchor, interval, count, now)
  local rolls, pays = blob[o + ROLL_LENGTH] >= 0, has(flags, USAGE_ALLOWED)
  local carries = ARGV[3] == '1' and not pays
  local over, reset_over, delta = 0, 0
  if has(flags, UNLIMITED) then
    delta, over = -balance, start
    blob[o + BALANCE], blob[o + GRANTED] = 0, 0
  else
    local first = index_at(anchor, interval, count, due_at)
    local last = index_at(anchor, interval, count, now)
    local new, over_after = start * blob[o + SLOTS], 0
    if has(flags, PER_ENTITY) then
      reset_over = blob[o + OVER]
      if rolls or (carries and reset_over > 0) then
        new, over_after = reset_slots(blob, o, feature_id, first, last, now, after, rows)
      end
      if carries then reset_over = over_after end
      blob[o + OVER] = over_after
      if over_after > 0 then reset_changes[#reset_changes + 1] = {'~', feature_id, blob[o], 0, 0, 0, over_after} end
    else
      local debts, unspent
      reset_over = math.max(0, -balance)
      new, debts, unspent = after_resets(balance, start, last - first + 1, carries)
      if carries then reset_over = math.min(reset_over, start - new) end
      if rolls then roll_row(blob, o, first, last, now, debts, unspent, rows) end
    end
    if pays then over = reset_over end
    if has(flags, PER_ENTITY) and not (pays or carries) then reset_over = 0 end  -- whose it was is not kept
    delta = new - balance
    blob[o + BALANCE] = new
  end
  blob[o + NEXT_RESET], blob[o + RESET_AT], blob[o + RESET_OVER], blob[o + HELD] = after, due_at, reset_over, 0
  local at = #resets
  resets[at + 1], resets[at + 2], resets[at + 3], resets[at + 4], resets[at + 5], resets[at + 6], resets[at + 7] =
    blob[o], delta, over, due_at, after, due_at, reset_over
end

-- Takes out the rollovers of buckets in `parents` that ended or were cut to nothing, with the shares
-- that entities have in them.
local function drop_rollovers(blob, feature_id, parents, now)
  for o = 3 + (blob[2] - 1) * ROW_WIDTH, 3, -ROW_WIDTH do
    local no, ends, flags = blob[o], blob[o + EXPIRES], blob[o + FLAGS]
    local nothing = blob[o + GRANTED] == 0 and blob[o + PREPAID] == 0 and blob[o + BALANCE] == 0
    if has(flags, ROLLOVER) and parents[blob[o + PARENT]] and (nothing or (ends > 0 and ends <= now)) then
      for _, id in ipairs(has(flags, PER_ENTITY) and entities_of(blob[o + ENTITY_FEATURE]) or {}) do
        local x = get(slot_field(feature_id, id), now)
        if remove_slot(x, no) then due[x], raws[x] = true, pack_blob(x) end
      end
      reset_changes[#reset_changes + 1] = {'-', feature_id, no, blob[o + BALANCE], 0}
      remove_row(blob, o)
    end
  end
end

-- Resets every due row of a blob, notes it in `resets` and `changes`, and takes out the rollovers of
-- those rows that are over. An unlimited bucket's delta is the low part of what it had counted and its
-- over_units the high part.
reset_due = function(blob, name, now)
  local feature_id, rows, any, parents = feature_of(name), {}, false, {}
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local at = blob[o + NEXT_RESET]
    if at > 0 and at <= now then
      any = true
      parents[blob[o]] = true
      reset_row(blob, o, feature_id, now, rows)
    end
  end
  if not any then return end
  drop_rollovers(blob, feature_id, parents, now)
  for _, row in ipairs(rows) do
    insert_row(blob, row)
    reset_changes[#reset_changes + 1] = {'+', feature_id, row}
  end
  due[blob], raws[blob] = true, pack_blob(blob)
end

end
