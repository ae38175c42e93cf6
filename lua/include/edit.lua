-- Putting rows and slots into a blob in memory and taking them out.

-- Puts a row (an array of its columns) where it is spent.
local function insert_row(blob, row)
  local at = 3
  while at < slot_count_at(blob) and spends_before(blob, at, row, 1) do at = at + ROW_WIDTH end
  for i = #blob, at, -1 do blob[i + ROW_WIDTH] = blob[i] end
  for i = 1, ROW_WIDTH do blob[at + i - 1] = row[i] end
  blob[2] = blob[2] + 1
end

local function remove_columns(blob, o, width)
  local size = #blob
  for i = o, size do blob[i] = blob[i + width] end
end

local function remove_row(blob, o)
  remove_columns(blob, o, ROW_WIDTH)
  blob[2] = blob[2] - 1
end

local function remove_slot(blob, no)
  local o = find_slot(blob, no)
  if not o then return false end
  local count_at = slot_count_at(blob)
  remove_columns(blob, o, SLOT_WIDTH)
  blob[count_at] = blob[count_at] - 1
  return true
end

-- The index of the slot of bucket `no`, made with these columns if there is none.
local function put_slot(blob, no, balance, period, granted, held)
  local o = find_slot(blob, no)
  if not o then
    local count_at = slot_count_at(blob)
    blob[count_at] = blob[count_at] + 1
    o = #blob + 1
    blob[o] = no
  end
  blob[o + BALANCE], blob[o + PERIOD], blob[o + SLOT_GRANTED], blob[o + SLOT_HELD] = balance, period, granted, held
  return o
end
