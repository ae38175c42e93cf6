-- Carries out a plan on the blobs in memory and notes what each bucket paid, in order.

-- Adds `amount` (negative: takes back) to what an unlimited bucket has counted, in two parts.
local function count_unlimited(blob, o, amount)
  local low, high = -blob[o + BALANCE], blob[o + GRANTED]
  local rest = math.fmod(amount, USED_HIGH_UNIT)
  low, high = low + rest, high + (amount - rest) / USED_HIGH_UNIT
  if low >= USED_HIGH_UNIT then low, high = low - USED_HIGH_UNIT, high + 1 end
  if low < 0 and high > 0 then low, high = low + USED_HIGH_UNIT, high - 1 end
  blob[o + BALANCE], blob[o + GRANTED] = -low, high
end

-- Adds `delta` to the slot of the bucket parent[po] in `x`, and to that bucket. What is noted in
-- `paid` says what a slot that was not stored stood at (base), else -1.
local function move_slot(parent, po, x, entity_id, delta, paid)
  local stored, base = find_slot(x, parent[po]), -1
  local before
  if stored and x[stored + PERIOD] == parent[po + NEXT_RESET] then
    before = x[stored + BALANCE]
    x[stored + BALANCE] = before + delta
  else
    before = parent[po + GRANTED]
    base = before
    put_slot(x, parent[po], before + delta, parent[po + NEXT_RESET], 0, 0)
  end
  parent[po + BALANCE] = parent[po + BALANCE] + delta
  parent[po + OVER] = parent[po + OVER] + math.max(0, -before - delta) - math.max(0, -before)
  touched[x], touched[parent] = true, true
  local at = #paid
  paid[at + 1], paid[at + 2], paid[at + 3], paid[at + 4], paid[at + 5], paid[at + 6] =
    -2, parent[po], entity_id, delta, base, parent[po + NEXT_RESET]
end

-- Adds `delta` to the balance of the row at blob[o].
local function move_row(blob, o, delta, paid)
  if has(blob[o + FLAGS], UNLIMITED) then count_unlimited(blob, o, -delta) else blob[o + BALANCE] = blob[o + BALANCE] + delta end
  touched[blob] = true
  paid[#paid + 1], paid[#paid + 2] = blob[o], delta
end

-- Moves the balances as the walk's plan says. Appends to `paid` what each bucket paid: (no, delta),
-- a slot's (-2, no, entity, delta, base, period), and where a credit system begins to pay
-- (-1, its id, n, d).
local function apply(w, paid)
  local system = 0
  for i = 1, #w.parts, 3 do
    local j, take = w.parts[i], w.parts[i + 1]
    if w.s[j] ~= system then
      system = w.s[j]
      local at = #paid
      paid[at + 1], paid[at + 2], paid[at + 3], paid[at + 4] = -1, w.id[system], w.n[system] or 1, w.d[system] or 1
    end
    if w.x[j] then move_slot(w.kt[j], w.ko[j], w.x[j], w.e[j], -take, paid) else move_row(w.t[j], w.o[j], -take, paid) end
  end
end
