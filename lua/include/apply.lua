-- Carries out a plan on the blobs in memory and notes every bucket touched.

-- Adds `amount` (negative: takes back) to what an unlimited bucket has counted, in two parts.
local function count_unlimited(blob, o, amount)
  local low, high = -blob[o + BALANCE], blob[o + GRANTED]
  local rest = math.fmod(amount, USED_HIGH_UNIT)
  low, high = low + rest, high + (amount - rest) / USED_HIGH_UNIT
  if low >= USED_HIGH_UNIT then low, high = low - USED_HIGH_UNIT, high + 1 end
  if low < 0 and high > 0 then low, high = low + USED_HIGH_UNIT, high - 1 end
  blob[o + BALANCE], blob[o + GRANTED] = -low, high
end

-- Moves the balances; appends (no, delta) to `deltas` and (no, entity, delta, base, period) of slots
-- to `slots` (base: what a slot that was not stored stood at, else -1).
local function apply(w, deltas, slots, touched)
  for j = 1, w.m do
    local take = w.take[j]
    if take ~= 0 then
      local t, o, terms, ko = w.t[j], w.o[j], w.kt[j], w.ko[j]
      if has(terms[ko + FLAGS], UNLIMITED) then
        count_unlimited(t, o, take)
        deltas[#deltas + 1], deltas[#deltas + 2] = terms[ko], -take
      elseif w.x[j] then
        local before, base, x = t[o + BALANCE], -1, w.x[j]
        local after = before - take
        if w.fresh[j] then
          base = before
          local stored = find_slot(x, terms[ko])
          if stored then
            x[stored + BALANCE], x[stored + PERIOD] = after, terms[ko + NEXT_RESET]
          else
            local count_at = slot_count_at(x)
            x[count_at] = x[count_at] + 1
            local at = #x
            x[at + 1], x[at + 2], x[at + 3] = terms[ko], after, terms[ko + NEXT_RESET]
          end
        else
          t[o + BALANCE] = after
        end
        terms[ko + BALANCE] = terms[ko + BALANCE] - take
        terms[ko + OVER] = terms[ko + OVER] + math.max(0, -after) - math.max(0, -before)
        touched[x], touched[terms] = true, true
        local at = #slots
        slots[at + 1], slots[at + 2], slots[at + 3], slots[at + 4], slots[at + 5] =
          terms[ko], w.e[j], -take, base, terms[ko + NEXT_RESET]
      else
        t[o + BALANCE] = t[o + BALANCE] - take
        local at = #deltas
        deltas[at + 1], deltas[at + 2] = terms[ko], -take
      end
      touched[t] = true
    end
  end
end
