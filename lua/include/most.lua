-- The largest amount that a reject-mode spend takes, and who would pay it. What plan_spend does with an
-- amount is not repeated here: the amount is worked out from the rooms, and planned by plan_spend.

-- How low entry j may go in a reject-mode spend: 0 or below, or false for no end.
local function floor_of(w, j)
  if has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then return false end
  if not may_go_below(w, j, 'reject') then return 0 end
  local room, endless = room_below(w, j, 'reject')
  return not endless and math.min(0, w.t[j][w.o[j] + BALANCE]) - room
end

-- Draws all that the walk has, as for an amount without end. Returns the units that pays, or nil and
-- the entry that would pay any amount.
local function drain(w)
  local units = 0
  -- Takes `room` from entry j; whether that is more than any amount.
  local function take(j, room, endless, below)
    local s, caps, flags = w.s[j], w.caps[w.s[j]], w.kt[j][w.ko[j] + FLAGS]
    if s > 0 and w.n[s] == 0 then return true end
    local windowed = s > 0 and caps and caps.window and not has(flags, ROLLOVER)
    if windowed and (endless or caps.window < room) then room, endless = caps.window, false end
    if endless then return true end
    if room <= 0 then return false end
    w.take[j] = w.take[j] + room
    if windowed then caps.window = caps.window - room end
    if below and caps and caps.spend then caps.spend = caps.spend - room end
    if s == 0 then units = math.min(MAX, units + room) else w.given[s] = math.min(MAX, w.given[s] + room) end
    return false
  end
  for j = 1, w.m do
    if w.s[j] == 0 and has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then return nil, j end
  end
  for j = 1, w.m do
    if take(j, w.t[j][w.o[j] + BALANCE], has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED), false) then return nil, j end
  end
  for j = 1, w.m do
    if may_go_below(w, j, 'reject') then
      local room, endless = room_below(w, j, 'reject')
      if take(j, room, endless, true) then return nil, j end
    end
  end
  for s, given in pairs(w.given) do
    if given > 0 then units = math.min(MAX, units + units_of(given, w.n[s], w.d[s])) end
  end
  return units
end

-- The plan of a reject-mode spend of so much over the whole walk; nil if it does not fit.
local function planned(at, amount, now)
  local w = build_walk(at, 0, now)
  if plan_spend(w, amount, 'reject') == 0 and in_range(w) then return w end
end

-- The units that each entry of a plan pays: of a credit system's, those that its credits complete
-- where they were drawn. Together they are the amount.
local function units_paid(w)
  local units, given, told = {}, {}, {}
  for j = 1, w.m do units[j] = 0 end
  for i = 1, #w.parts, 3 do
    local j, taken = w.parts[i], w.parts[i + 1]
    local s = w.s[j]
    if s == 0 then
      units[j] = units[j] + taken
    else
      given[s] = (given[s] or 0) + taken
      local so_far = math.min(w.paid[s], units_of(given[s], w.n[s], w.d[s]))
      units[j], told[s] = units[j] + so_far - (told[s] or 0), so_far
    end
  end
  return units
end

-- The largest amount that a reject-mode spend takes (false: any), and how many units each entry of the
-- walk then pays (false: without end).
local function plan_most(at, now)
  local w = build_walk(at, 0, now)
  local window = w.caps[0] and w.caps[0].window
  local most, endless = drain(w)
  if endless and not window then
    local units = {}
    for j = 1, w.m do
      local s = w.s[j]
      units[j] = s == 0 and w.take[j] or w.n[s] > 0 and units_of(w.take[j], w.n[s], w.d[s]) or 0
    end
    units[endless] = false
    return false, units
  end
  most = math.min(most or MAX, window or MAX)
  local best, fits, too_much = planned(at, most, now), most, most
  if not best then  -- quantities on the way pass the range
    fits = 0
    while too_much - fits > 1 do
      local middle = fits + math.floor((too_much - fits) / 2)
      if planned(at, middle, now) then fits = middle else too_much = middle end
    end
    best = planned(at, fits, now)
  end
  return fits, units_paid(best)
end
