-- Reset dates: the original anchor plus k intervals, calendar months in UTC clamped to the month's
-- end (31 Jan, 28 Feb, 31 Mar), in closed form. sidecar/domain/intervals.py is the same in Python.
local FIXED_MS = {[1] = 60000, [2] = 3600000, [3] = 86400000, [4] = 604800000}
local MONTHS = {[5] = 1, [6] = 3, [7] = 6, [8] = 12}
local DAY_MS = 86400000

-- Year, month, day of a day counted from 1970-01-01 (Howard Hinnant's civil_from_days).
local function civil_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400
  if month <= 2 then year = year + 1 end
  return year, month, day
end

-- The day number of a date (days_from_civil).
local function days_of(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local doy = math.floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5) + day - 1
  local doe = yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy
  return era * 146097 + doe - 719468
end

local function add_months(anchor_ms, months)
  local days = math.floor(anchor_ms / DAY_MS)
  local year, month, day = civil_of(days)
  local index = year * 12 + month - 1 + months
  year, month = math.floor(index / 12), index % 12 + 1
  local last = days_of(month == 12 and year + 1 or year, month == 12 and 1 or month + 1, 1) - days_of(year, month, 1)
  return days_of(year, month, math.min(day, last)) * DAY_MS + anchor_ms - days * DAY_MS
end

-- The first anchor + k * interval after `now`.
local function next_reset(anchor_ms, interval, count, now)
  local fixed = FIXED_MS[interval]
  if fixed then
    local length = fixed * count
    return anchor_ms + (math.floor((now - anchor_ms) / length) + 1) * length
  end
  local step = MONTHS[interval] * count
  local year, month = civil_of(math.floor(anchor_ms / DAY_MS))
  local now_year, now_month = civil_of(math.floor(now / DAY_MS))
  local k = math.max(1, math.floor(((now_year - year) * 12 + now_month - month) / step))
  local at = add_months(anchor_ms, k * step)
  if at <= now then at = add_months(anchor_ms, (k + 1) * step) end
  return at
end

-- anchor + k * interval (k may be negative).
local function at_index(anchor_ms, interval, count, k)
  local fixed = FIXED_MS[interval]
  if fixed then return anchor_ms + fixed * count * k end
  return add_months(anchor_ms, MONTHS[interval] * count * k)
end

-- The greatest k with anchor + k * interval <= `at`.
local function index_at(anchor_ms, interval, count, at)
  local fixed = FIXED_MS[interval]
  if fixed then return math.floor((at - anchor_ms) / (fixed * count)) end
  local step = MONTHS[interval] * count
  local year, month = civil_of(math.floor(anchor_ms / DAY_MS))
  local to_year, to_month = civil_of(math.floor(at / DAY_MS))
  local k = math.floor(((to_year - year) * 12 + to_month - month) / step)
  if at_index(anchor_ms, interval, count, k) > at then k = k - 1 end
  return k
end

-- When a rollover made at anchor + k * interval ends: `months` later, on the anchor's day.
local function rollover_end(anchor_ms, interval, count, k, months)
  if months == 0 then return 0 end
  if FIXED_MS[interval] then return add_months(at_index(anchor_ms, interval, count, k), months) end
  return add_months(anchor_ms, MONTHS[interval] * count * k + months)
end

-- First and last instant (exclusive) of the calendar day, week from Monday, month or year in UTC.
local function utc_window(interval, now)
  local days = math.floor(now / DAY_MS)
  if interval == 3 then return days * DAY_MS, (days + 1) * DAY_MS end
  if interval == 4 then
    local monday = days - (days + 3) % 7
    return monday * DAY_MS, (monday + 7) * DAY_MS
  end
  local year, month = civil_of(days)
  if interval == 8 then return days_of(year, 1, 1) * DAY_MS, days_of(year + 1, 1, 1) * DAY_MS end
  local first = days_of(year, month, 1) * DAY_MS
  return first, add_months(first, 1)
end
