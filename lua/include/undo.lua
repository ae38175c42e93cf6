-- Giving back what an event took, to the very buckets and rollovers, and taking back what a refund
-- gave: docs/balances.md, "Exact refunds" and "Holds". A part is (feature, number, kind, entity,
-- amount); kinds: 0 a bucket of the customer, 1 of an entity, 2 an entity's slot. What moves is
-- noted in `paid` and `changes`.
local needs_restore = false

-- Where a part's bucket is: blob and row; for a slot also the entity's blob. Nothing if it is gone.
local function bucket_of(feature_id, no, kind, entity, now)
  if kind > 0 and not redis.call('HGET', KEYS[2], entity_field(entity)) then return nil end
  local blob = get(kind == 1 and slot_field(feature_id, entity) or bucket_field(feature_id), now)
  local o = find_row(blob, no)
  if not o then
    if no < 2147483648 and blob.archived[1] > 0 then needs_restore = true end
    return nil
  end
  if not usable(blob, o, now) then return nil end
  return blob, o, kind == 2 and get(slot_field(feature_id, entity), now) or nil
end

-- The balance at a place, and what it was granted.
local function standing(blob, o, x)
  if not x then return blob[o + BALANCE], blob[o + GRANTED] end
  local s = find_slot(x, blob[o])
  if s and x[s + PERIOD] == blob[o + NEXT_RESET] then
    return x[s + BALANCE], has(blob[o + FLAGS], ROLLOVER) and x[s + SLOT_GRANTED] or blob[o + GRANTED]
  end
  return blob[o + GRANTED], blob[o + GRANTED]
end

local function move(blob, o, x, entity, delta, paid)
  if delta == 0 then return end
  if x then move_slot(blob, o, x, entity, delta, paid) else move_row(blob, o, delta, paid) end
end

-- Cuts what the rollovers of the bucket at blob[o] (of one entity's share with `x`) have above their
-- maximum, the soonest-expiring first.
local function trim_rollovers(blob, o, x, entity, now)
  local rows, surplus = rollovers_of(blob, blob[o], now), -rollover_max(blob, o)
  for _, e in ipairs(rows) do surplus = surplus + (standing(blob, e, x)) end
  for _, e in ipairs(rows) do
    local cut = math.max(0, math.min(surplus, (standing(blob, e, x))))
    if cut > 0 then
      surplus = surplus - cut
      local of = x and PREPAID or GRANTED
      blob[e + BALANCE], blob[e + of] = blob[e + BALANCE] - cut, blob[e + of] - cut
      changes[#changes + 1] = {'r', blob[e], -cut, -cut}
      touched[blob] = true
      if x then
        local s = find_slot(x, blob[e])
        x[s + BALANCE], x[s + SLOT_GRANTED] = x[s + BALANCE] - cut, x[s + SLOT_GRANTED] - cut
        changes[#changes + 1] = {'sd', blob[e], entity, -cut, -cut}
        touched[x] = true
      end
    end
  end
end

-- The plain rule for what a bucket that is gone would have got: of the call's own feature (at
-- ARGV[at]) the walk that a refund of it takes, of a credit system the walk of that.
local function refund_plainly(at, feature_id, entity, amount, paid, now)
  local w
  if feature_id == ARGV[at] then
    if archived_in(at) then needs_restore = true return end
    w = build_walk(at, -amount, now)
  else
    local blob, x = get(bucket_field(feature_id), now), entity ~= '' and get(slot_field(feature_id, entity), now)
    if blob.archived[1] > 0 or x and x.archived[1] > 0 then needs_restore = true return end
    w = new_walk()
    w.id[0] = feature_id
    if x then add_entity_rows(w, blob, x, entity, entity_feature, 0, now) merge(w, 1) end
    add_customer_rows(w, blob, 0, now, x and true)
    if not x then
      local from = w.m + 1
      add_all_slots(w, blob, function(id) return get(slot_field(feature_id, id), now) end, 0, now)
      merge(w, from, true)
    end
  end
  if plan_refund(w, amount, 'cap') then apply(w, paid) end
end

-- Adds to the rollover that reset number k made, or makes it, as far as it lives; then all are cut to
-- their maximum.
local function join_rollover(feature_id, blob, o, x, entity, k, units, now)
  local months = blob[o + ROLL_LENGTH]
  if months < 0 then return end
  local anchor, interval, count = blob[o + ANCHOR], blob[o + INTERVAL], blob[o + INTERVAL_COUNT]
  local ends, made_at = rollover_end(anchor, interval, count, k, months), at_index(anchor, interval, count, k)
  if ends ~= 0 and ends <= now then return end
  local target
  for _, e in ipairs(rollovers_of(blob, blob[o], now)) do
    if months == 0 or blob[e + CREATED] == made_at then target = e end
  end
  local no, s = target and blob[target]
  if x and no then s = find_slot(x, no) end
  if months > 0 then
    local granted = x and (s and x[s + SLOT_GRANTED] or 0) or target and blob[target + GRANTED] or 0
    units = math.max(0, math.min(units, rollover_max(blob, o) - granted))
  end
  if units == 0 then return end
  local of = x and PREPAID or GRANTED
  if target then
    blob[target + BALANCE], blob[target + of] = blob[target + BALANCE] + units, blob[target + of] + units
    changes[#changes + 1] = {'r', no, units, units}
  else
    local row, parent = rollover_row(blob, o, made_at, ends), blob[o]
    no = row[1]
    row[1 + BALANCE], row[1 + of] = units, units
    insert_row(blob, row)
    changes[#changes + 1] = {'+', feature_id, row}
    o = find_row(blob, parent)
  end
  touched[blob] = true
  if x then
    if s then
      x[s + BALANCE], x[s + SLOT_GRANTED] = x[s + BALANCE] + units, x[s + SLOT_GRANTED] + units
      changes[#changes + 1] = {'sd', no, entity, units, units}
    else
      put_slot(x, no, units, 0, units, 0)
      changes[#changes + 1] = {'s', no, entity, units, 0, units, 0}
    end
    touched[x] = true
  end
  trim_rollovers(blob, o, x, entity, now)
end

-- What a give-back of before the bucket's last reset would have changed there.
local function give_back_before_reset(feature_id, blob, o, x, entity, amount, made_ms, now, paid)
  local k = index_at(blob[o + ANCHOR], blob[o + INTERVAL], blob[o + INTERVAL_COUNT], made_ms) + 1
  local period = at_index(blob[o + ANCHOR], blob[o + INTERVAL], blob[o + INTERVAL_COUNT], k)
  local pays, credited = has(blob[o + FLAGS], USAGE_ALLOWED), 0
  if period == blob[o + RESET_AT] then
    credited = math.min(amount, blob[o + RESET_OVER])
    blob[o + RESET_OVER] = blob[o + RESET_OVER] - credited
    touched[blob] = true
    if not pays and ARGV[3] == '1' and credited > 0 then move(blob, o, x, entity, credited, paid) end
  elseif pays then
    credited = amount
  end
  if credited > 0 then changes[#changes + 1] = {'o', blob[o], period, credited} end
  if amount > credited then join_rollover(feature_id, blob, o, x, entity, k, amount - credited, now) end
end

-- Gives `amount` back that was taken at made_ms.
local function give_back(at, feature_id, no, kind, entity, amount, made_ms, now, paid)
  local blob, o, x = bucket_of(feature_id, no, kind, entity, now)
  if not blob then
    if no < 2147483648 then refund_plainly(at, feature_id, entity, amount, paid, now) end
    return
  end
  local before_reset = blob[o + RESET_AT] > 0 and made_ms < blob[o + RESET_AT]
  if has(blob[o + FLAGS], UNLIMITED) then
    local used = blob[o + GRANTED] > 0 and MAX or -blob[o + BALANCE]
    if not before_reset then move(blob, o, x, entity, math.min(amount, used), paid) end
  elseif before_reset then
    give_back_before_reset(feature_id, blob, o, x, entity, amount, made_ms, now, paid)
  else
    local balance, granted = standing(blob, o, x)
    move(blob, o, x, entity, math.max(0, math.min(amount, granted - balance)), paid)
    local parent = has(blob[o + FLAGS], ROLLOVER) and find_row(blob, blob[o + PARENT])
    if parent then trim_rollovers(blob, parent, x, entity, now) end
  end
end

-- Takes `amount` again that a refund gave at made_ms: a debt it healed (pass 1) comes back within the
-- bucket's floor; what it refilled (pass 2) as far as the bucket still has it. From a bucket that is
-- gone or was reset since, nothing.
local function take_again(feature_id, no, kind, entity, amount, pass, made_ms, now, paid)
  local blob, o, x = bucket_of(feature_id, no, kind, entity, now)
  if not blob or (blob[o + RESET_AT] > 0 and made_ms < blob[o + RESET_AT]) then return end
  local balance, room = standing(blob, o, x), amount
  if not has(blob[o + FLAGS], UNLIMITED) then
    if pass == 2 then
      room = math.max(0, balance)
    else
      local spend
      for i, id in ipairs(field_ids) do
        if id == feature_id then spend = spend_room(i, id, own[i], entity_blobs[i], entity_feature, now) end
      end
      local purchasable = blob[o + PURCHASABLE]
      if spend then room = math.max(0, balance) + spend
      elseif purchasable >= 0 then room = math.max(0, balance + purchasable) end
    end
  end
  move(blob, o, x, entity, -math.min(amount, room), paid)
end

-- How much of each part (a list of amounts above zero, with their systems) `units` take, walked over
-- as if the parts were the buckets.
local function walked(amounts, systems, n, d, units, convert)
  local w, left = new_walk(), units
  w.n, w.d = n, d
  for s in pairs(n) do w.given[s], w.paid[s] = 0, 0 end
  for j, s in ipairs(systems) do w.s[j], w.take[j] = s, 0 end
  for j, room in ipairs(amounts) do
    if left == 0 then break end
    left = draw(w, j, room, left, convert)
  end
  return w.take
end

-- Takes units back out of the windows that counted them, where these are still open. `counted` is a
-- list of (feature, entity, interval, anchor, start, units), `back` the units of each feature.
local function uncount(counted, back)
  for i = 1, #counted, 6 do
    local feature_id, whose, units = counted[i], counted[i + 1], back[counted[i]] or 0
    local name = whose == '' and window_field(feature_id) or own_window_field(feature_id, whose)
    local raw = plain_writes[name] or redis.call('HGET', KEYS[2], name)
    local list = raw and cmsgpack.unpack(raw) or {2}
    for c = 2, #list, 5 do
      if units > 0 and list[c] == counted[i + 2] and list[c + 1] == counted[i + 3] and list[c + 2] == counted[i + 4] then
        local less = math.min(units, list[c + 4])
        list[c + 4] = list[c + 4] - less
        plain_writes[name] = cmsgpack.pack(list)
        changes[#changes + 1] = {'w', feature_id, whose, list[c], list[c + 1], list[c + 2], list[c + 3], -less}
      end
    end
  end
end
