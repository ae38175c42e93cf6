-- Who pays how much: plans over a walk, without touching a balance. docs/balances.md, "Order of
-- spending", "Refunds" and "Caps". A plan fills w.take and w.parts; `apply` (apply.lua) carries it
-- out.

-- Draws up to `room` from entry j towards `left` units (`convert` says what units are worth in
-- credits). Returns the units still left, or nil when a quantity would pass the range.
local function draw(w, j, room, left, convert)
  local s, taken, after = w.s[j]
  if s == 0 then
    taken = room < left and room or left
    after = left - taken
  else
    local given, paid = w.given[s], w.paid[s]
    local total = convert(paid + left, w.n[s], w.d[s])
    if not total then return nil end
    taken = total - given
    if taken <= room then
      w.given[s], w.paid[s], after = total, paid + left, 0
    else
      taken = room
      w.given[s] = given + room
      w.paid[s] = units_of(w.given[s], w.n[s], w.d[s])
      after = left - (w.paid[s] - paid)
    end
  end
  if taken > 0 then
    w.take[j] = w.take[j] + taken
    local parts = w.parts
    local at = #parts
    parts[at + 1], parts[at + 2], parts[at + 3] = j, taken, w.pass
  end
  return after
end

-- Whether a bucket of the feature (or system) s may natively go below zero.
local function any_native(w, s)
  for j = 1, w.m do
    if w.s[j] == s and has(w.kt[j][w.ko[j] + FLAGS], USAGE_ALLOWED) then return true end
  end
  return false
end

-- Whether entry j may go below zero.
local function may_go_below(w, j, mode)
  local flags, caps = w.kt[j][w.ko[j] + FLAGS], w.caps[w.s[j]]
  if has(flags, ROLLOVER) or has(flags, UNLIMITED) then return false end
  if mode == 'overflow' then return true end
  local control = caps and caps.control or -1
  if control == 0 then return false end
  if has(flags, USAGE_ALLOWED) then return true end
  if control == 1 and not any_native(w, w.s[j]) then return true end
  return has(flags, CONTINUOUS) and not has(flags, PAID) and mode ~= 'reject'
end

-- How much further below zero entry j may go; MAX for no floor.
local function room_below(w, j, mode)
  local caps, o = w.caps[w.s[j]], w.ko[j]
  if caps and caps.spend then return caps.spend end
  local balance = w.t[j][w.o[j] + BALANCE] - w.take[j]
  local purchasable = w.kt[j][o + PURCHASABLE]
  if mode == 'overflow' or purchasable < 0 or not has(w.kt[j][o + FLAGS], USAGE_ALLOWED) then
    return MAX + (balance < 0 and balance or 0), true
  end
  return purchasable + (balance < 0 and balance or 0)
end

-- Draws from entry j as `draw` does, within its system's usage limits; `below` also within what
-- spend limits leave.
local function draw_within(w, j, room, left, mode, below)
  local caps, s = w.caps[w.s[j]], w.s[j]
  if not caps then return draw(w, j, room, left, credits_of) end
  local windowed = (s > 0 or caps.system) and caps.window and mode ~= 'overflow' and not has(w.kt[j][w.ko[j] + FLAGS], ROLLOVER)
  if windowed and caps.window < room then room = caps.window end
  local before = w.take[j]
  left = draw(w, j, room, left, credits_of)
  local taken = w.take[j] - before
  if windowed then caps.window = caps.window - taken end
  if below and caps.spend then caps.spend = caps.spend - taken end
  return left
end

-- Plans a spend of `amount` units. Returns what no bucket took, or nil past the range.
local function plan_spend(w, amount, mode)
  local left, beyond, own = amount, 0, w.caps[0]
  if own and own.window and not own.system and mode ~= 'overflow' and amount > own.window then
    if mode == 'reject' then return amount end
    beyond, left = amount - own.window, own.window
  end
  w.pass = 1
  for j = 1, w.m do
    if w.s[j] ~= 0 then break end
    if has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then
      left = draw_within(w, j, MAX, left, mode, false)
      return left and left + beyond
    end
  end
  for j = 1, w.m do
    if left == 0 then return beyond end
    local room = has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) and MAX or w.t[j][w.o[j] + BALANCE]
    left = draw_within(w, j, room > 0 and room or 0, left, mode, false)
    if not left then return nil end
  end
  w.pass = 2
  for j = 1, w.m do
    if left == 0 then return beyond end
    if may_go_below(w, j, mode) then
      local room, endless = room_below(w, j, mode)
      local caps = w.caps[w.s[j]]
      local windowed = caps and caps.window and (w.s[j] > 0 or caps.system)
      left = draw_within(w, j, room > 0 and room or 0, left, mode, true)
      if not left or (endless and left > 0 and not windowed) then return nil end
    end
  end
  return left + beyond
end

-- Plans the return of `amount` units: debts heal to zero over the whole walk, then buckets refill up
-- to their grants; rollovers get nothing; in overflow mode the first bucket takes the rest. Returns
-- what was dropped.
local function plan_refund(w, amount, mode)
  local left = amount
  local first, last = 1, w.m
  for j = 1, w.m do
    if w.s[j] == 0 and has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then first, last = j, j break end
  end
  while first < last and has(w.kt[first][w.ko[first] + FLAGS], ROLLOVER) do first = first + 1 end
  for pass = 1, 2 do
    w.pass = pass
    for j = first, last do
      if left == 0 then break end
      local terms, o = w.kt[j], w.ko[j]
      local balance, room = w.t[j][w.o[j] + BALANCE], 0
      if has(terms[o + FLAGS], ROLLOVER) then
        room = 0
      elseif has(terms[o + FLAGS], UNLIMITED) then
        if pass == 2 then room = terms[o + GRANTED] > 0 and MAX or -balance end
      elseif pass == 1 then
        room = -balance
      else
        room = terms[o + GRANTED] - (balance > 0 and balance or 0)
      end
      -- What has no room takes no part: a share that rounds to 0 credits would end the refund there.
      if room > 0 then left = draw(w, j, room, left, credits_back) end
      if not left then return nil end
    end
  end
  local flags = w.m > 0 and w.kt[first][w.ko[first] + FLAGS] or 0
  if left > 0 and mode == 'overflow' and w.m > 0 and not has(flags, UNLIMITED) and not has(flags, ROLLOVER) then
    left = draw(w, first, MAX, left, credits_back)
  end
  for j = 1, w.m do w.take[j] = -w.take[j] end
  for i = 2, #w.parts, 3 do w.parts[i] = -w.parts[i] end
  return left
end

-- Whether a plan stays inside the range of exact integers: each balance it changes, what is used of
-- that bucket, and the sums of both over each feature of the walk.
local function in_range(w)
  local balances, usages, changed = {}, {}, {}
  for j = 1, w.m do
    local terms, o, s, take = w.kt[j], w.ko[j], w.s[j], w.take[j]
    if not has(terms[o + FLAGS], UNLIMITED) then
      local after, granted = w.t[j][w.o[j] + BALANCE] - take, terms[o + GRANTED]
      if w.x[j] and has(terms[o + FLAGS], ROLLOVER) then granted = w.t[j][w.o[j] + SLOT_GRANTED] end
      if take ~= 0 then
        changed[s] = true
        if after > MAX or granted - after > MAX then return false end
        local sum, all = terms[o + BALANCE] - take, granted * terms[o + SLOTS]
        if w.x[j] and (sum > MAX or all - sum > MAX) then return false end
      end
      balances[s], usages[s] = (balances[s] or 0) + math.max(0, after), (usages[s] or 0) + granted - after
    end
  end
  for s in pairs(changed) do
    if balances[s] > MAX or math.abs(usages[s]) > MAX then return false end
  end
  return true
end
