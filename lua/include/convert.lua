-- Credits for units and back, in integers: a cost is n/d credits a unit, both scaled, n * d < 2^53,
-- so that no product below passes 2^53. fmod is exact where `/` would round.

-- ceil(units * n / d), or nil past the range.
local function credits_of(units, n, d)
  local rest = math.fmod(units, d)
  local whole = (units - rest) / d
  if n > 0 and whole > MAX / n then return nil end
  local part = rest * n
  local over = math.fmod(part, d)
  local credits = whole * n + (part - over) / d
  if over > 0 then credits = credits + 1 end
  return credits <= MAX and credits or nil
end

-- floor(units * n / d), or nil past the range.
local function credits_back(units, n, d)
  local rest = math.fmod(units, d)
  local whole = (units - rest) / d
  if n > 0 and whole > MAX / n then return nil end
  local part = rest * n
  local credits = whole * n + (part - math.fmod(part, d)) / d
  return credits <= MAX and credits or nil
end

-- floor(credits * d / n): the units that so many credits have paid.
local function units_of(credits, n, d)
  local rest = math.fmod(credits, n)
  local part = rest * d
  return (credits - rest) / n * d + (part - math.fmod(part, n)) / n
end
