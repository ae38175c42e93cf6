-- Due resets, once per period however many callers race: docs/balances.md, "Resets".

-- Resets every due row of a blob and appends (no, delta, over_units, period_end, next_reset) of
-- each to `resets`. Missed periods are caught up in one step. An unlimited bucket's delta is the
-- low part of what it had counted and its over_units the high part. Returns whether any was due.
local function reset_due(blob, now, resets)
  local any = false
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local due = blob[o + NEXT_RESET]
    if due > 0 and due <= now then
      any = true
      local flags, balance = blob[o + FLAGS], blob[o + BALANCE]
      local delta, over
      if has(flags, UNLIMITED) then
        delta, over = -balance, blob[o + GRANTED]
        blob[o + BALANCE], blob[o + GRANTED] = 0, 0
      else
        local start = blob[o + GRANTED]
        over = 0
        if has(flags, PER_ENTITY) then
          start = start * blob[o + SLOTS]
          if has(flags, USAGE_ALLOWED) then over = blob[o + OVER] end
          blob[o + OVER] = 0
        elseif has(flags, USAGE_ALLOWED) and balance < 0 then
          over = -balance
        end
        delta = start - balance
        blob[o + BALANCE] = start
      end
      local after = next_reset(blob[o + ANCHOR], blob[o + INTERVAL], blob[o + INTERVAL_COUNT], now)
      blob[o + NEXT_RESET] = after
      local at = #resets
      resets[at + 1], resets[at + 2], resets[at + 3], resets[at + 4], resets[at + 5] = blob[o], delta, over, due, after
    end
  end
  return any
end
