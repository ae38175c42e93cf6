-- What a check of one feature at `at` comes to: (nil, allowed 0|1, reason, whose balance, required
-- in its terms, walk, left), or a refusal. The walk has the plan of what is to be taken.
local function decide(at, amount, now)
  local w = build_walk(at, amount, now)
  local held, fits, left = judge(w, amount)
  if not left then return {'RANGE', 1} end
  if left > 0 and w.truncated then return {'SLOTS', 1} end
  local reason = ''
  if not fits then reason = held and reason_of(at, amount, now, build_walk(at, amount, now), left) or 'not_held' end
  local chosen, required = choose(at, amount, now), amount
  if chosen > 0 then
    local n, d = tonumber(ARGV[at + 2 + chosen * 3]), tonumber(ARGV[at + 3 + chosen * 3])
    required = amount > 0 and credits_of(amount, n, d) or amount < 0 and -(credits_back(-amount, n, d) or -amount) or amount
  end
  if amount < 0 and fits and not w.boolean then
    left = plan_refund(w, -amount, 'reject')
    if not left or not in_range(w) then return {'RANGE', 1} end
  end
  return nil, fits and 1 or 0, reason, chosen, required, w, left
end
