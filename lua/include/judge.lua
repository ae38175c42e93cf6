-- Deciding without writing: whether a spend of one feature fits, why not, and whose balance shows
-- it. What `check` answers and what `send_event` and holds do come from here.

-- Whether the walk holds anything, whether it can pay the whole amount as it is, and what of it no
-- bucket takes: nil past the range.
local function judge(w, amount)
  if not w.held then return false, false, 0 end
  if amount <= 0 or w.boolean then return true, true, 0 end
  local left = plan_spend(w, amount, 'reject')
  if left and not in_range(w) then left = nil end
  return true, left == 0, left
end

-- Whose balance the answer shows: the feature's if it alone suffices, else the first held system
-- that does, else the first held system, else the feature. Returns 0 or the system's number.
local function choose(at, amount, now)
  local systems = tonumber(ARGV[at + 3])
  if systems == 0 then return 0 end
  local _, own_fits = judge(build_walk(at, amount, now, 0), amount)
  if own_fits then return 0 end
  local first
  for s = 1, systems do
    local held, fits = judge(build_walk(at, amount, now, s), amount)
    if held and fits then return s end
    if held and not first then first = s end
  end
  return first or 0
end

-- Adds what open holds have of every bucket read so far (sign 1), or takes it off again (-1).
-- Returns whether they have anything.
local function give_held(sign)
  local any = false
  for i = 1, known do
    local blob = blobs[i]
    for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
      any = any or blob[o + HELD] ~= 0
      blob[o + BALANCE] = blob[o + BALANCE] + sign * blob[o + HELD]
    end
    local s = slot_count_at(blob)
    for o = s + 1, s + blob[s] * SLOT_WIDTH, SLOT_WIDTH do
      any = any or blob[o + SLOT_HELD] ~= 0
      blob[o + BALANCE] = blob[o + BALANCE] + sign * blob[o + SLOT_HELD]
    end
  end
  return any
end

-- Why a spend of what is held does not fit, `left` of it being left: the first cause that applies.
local function reason_of(at, amount, now, w, left)
  local own_caps = w.caps[0]
  if own_caps and own_caps.window and not own_caps.system and amount > own_caps.window then return 'usage_limit' end
  local function better_without(which, instead)
    local v, any = build_walk(at, amount, now), false
    for _, caps in pairs(v.caps) do
      if caps[which] then any, caps[which] = true, instead end
    end
    local then_left = any and plan_spend(v, amount, 'reject')
    return any and (not then_left or then_left < left)
  end
  if better_without('window') then return 'usage_limit' end
  -- Not without it, but with one that leaves everything: it stands in for usage limits, which may be
  -- lower and then have nothing to do with the denial.
  if better_without('spend', MAX) then return 'spend_limit' end
  local any = give_held(1)
  local fits = any and plan_spend(build_walk(at, amount, now), amount, 'reject') == 0
  give_held(-1)
  return fits and 'held_by_others' or 'insufficient_balance'
end
