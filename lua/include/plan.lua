-- Who pays how much: plans over a walk, without touching a balance. docs/balances.md, "Order of
-- spending" and "Refunds". A plan fills w.take; `apply` (apply.lua) carries it out.

-- Draws up to `room` from entry j towards `left` units (`convert` says what units are worth in
-- credits). Returns the units still left, or nil when a quantity would pass the range.
local function draw(w, j, room, left, convert)
  local s = w.s[j]
  if s == 0 then
    local taken = room < left and room or left
    w.take[j] = w.take[j] + taken
    return left - taken
  end
  local given, paid = w.given[s], w.paid[s]
  local total = convert(paid + left, w.n[s], w.d[s])
  if not total then return nil end
  local want = total - given
  if want <= room then
    w.take[j], w.given[s], w.paid[s] = w.take[j] + want, total, paid + left
    return 0
  end
  given = given + room
  local now_paid = units_of(given, w.n[s], w.d[s])
  w.take[j], w.given[s], w.paid[s] = w.take[j] + room, given, now_paid
  return left - (now_paid - paid)
end

-- How far below zero entry j may go: nil when it may not, else the room below zero (MAX: no floor).
local function depth(w, j, mode)
  local terms, o = w.kt[j], w.ko[j]
  if mode == 'overflow' then return MAX end
  local flags = terms[o + FLAGS]
  if has(flags, USAGE_ALLOWED) then
    local purchasable = terms[o + PURCHASABLE]
    return purchasable < 0 and MAX or purchasable
  end
  if has(flags, CONTINUOUS) and not has(flags, PAID) and mode ~= 'reject' then return MAX end
end

-- Plans a spend of `amount` units. Returns what no bucket took, or nil past the range.
local function plan_spend(w, amount, mode)
  local left = amount
  for j = 1, w.m do
    if w.s[j] ~= 0 then break end
    if has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then return draw(w, j, MAX, left, credits_of) end
  end
  for j = 1, w.m do
    if left == 0 then return 0 end
    local room = has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) and MAX or w.t[j][w.o[j] + BALANCE]
    left = draw(w, j, room > 0 and room or 0, left, credits_of)
    if not left then return nil end
  end
  for j = 1, w.m do
    if left == 0 then return 0 end
    local below = depth(w, j, mode)
    if below then
      local balance = w.t[j][w.o[j] + BALANCE] - w.take[j]
      local room = below + (balance < 0 and balance or 0)
      local before = left
      left = draw(w, j, room > 0 and room or 0, left, credits_of)
      if not left then return nil end
      if below == MAX and left > 0 and before > 0 then return nil end
    end
  end
  return left
end

-- Plans the return of `amount` units: debts heal to zero over the whole walk, then buckets refill up
-- to their grants; in overflow mode the first bucket takes the rest. Returns what was dropped.
local function plan_refund(w, amount, mode)
  local left = amount
  local first, last = 1, w.m
  for j = 1, w.m do
    if w.s[j] == 0 and has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then first, last = j, j break end
  end
  for pass = 1, 2 do
    for j = first, last do
      if left == 0 then break end
      local terms, o = w.kt[j], w.ko[j]
      local balance, room = w.t[j][w.o[j] + BALANCE], 0
      if has(terms[o + FLAGS], UNLIMITED) then
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
  if left > 0 and mode == 'overflow' and w.m > 0 and not has(w.kt[first][w.ko[first] + FLAGS], UNLIMITED) then
    left = draw(w, first, MAX, left, credits_back)
  end
  for j = 1, w.m do w.take[j] = -w.take[j] end
  return left
end

-- Whether a plan stays inside the range of exact integers.
local function in_range(w)
  for j = 1, w.m do
    local take = w.take[j]
    if take ~= 0 and not has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then
      local after = w.t[j][w.o[j] + BALANCE] - take
      if after > MAX or after < -MAX then return false end
      if w.x[j] then
        local sum = w.kt[j][w.ko[j] + BALANCE] - take
        if sum > MAX or sum < -MAX then return false end
      end
    end
  end
  return true
end
