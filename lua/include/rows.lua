-- How buckets are packed: sidecar/domain/layout.py has the same numbers, a test compares them.
-- In a script a blob is one flat array: [format, rows, row * rows, slots, slot * slots]; `o` is the
-- index of a row's (or slot's) first column, its number. `archived` is what left the hot state.
--- @include "formats"
local PACKED_MAX = 500
local ROW_WIDTH, SLOT_WIDTH = 25, 5
local BALANCE, GRANTED, FLAGS, PURCHASABLE, NEXT_RESET, EXPIRES, ANCHOR = 1, 2, 3, 4, 5, 6, 7
local INTERVAL, INTERVAL_COUNT, ENTITY, PREPAID, CREATED = 8, 9, 10, 12, 14
local PLAN, ITEM, SLOTS, OVER, ENTITY_FEATURE = 11, 13, 15, 16, 17
local PARENT, ROLL_LENGTH, ROLL_MAX, ROLL_PERCENT, RESET_AT, RESET_OVER, HELD = 18, 19, 20, 21, 22, 23, 24
local PERIOD, SLOT_GRANTED, SLOT_HELD = 2, 3, 4
local UNLIMITED, USAGE_ALLOWED, CONTINUOUS, ADD_ON, PER_ENTITY, BOOLEAN, PAID = 1, 2, 8, 16, 32, 64, 128
local ROLLOVER = 256
local MAX = 9007199254740991
local USED_HIGH_UNIT = 4503599627370496
local has = function(flags, flag) return bit.band(flags, flag) ~= 0 end

-- The index of the slot count, which follows the rows.
local function slot_count_at(blob) return 3 + blob[2] * ROW_WIDTH end

local function new_blob() return {FORMAT, 0, 0, archived = {0, 0, 0}} end

-- The index of the row with this number, or nil.
local function find_row(blob, no)
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    if blob[o] == no then return o end
  end
end

-- The index of the slot of bucket `no`, or nil.
local function find_slot(blob, no)
  local at = slot_count_at(blob)
  for o = at + 1, at + blob[at] * SLOT_WIDTH, SLOT_WIDTH do
    if blob[o] == no then return o end
  end
end

-- The blob in its packed form.
local function unpack_blob(raw)
  local format, rows, slots, count, granted, prepaid, at = struct.unpack(COUNTS, raw)
  if format ~= FORMAT then error('buckets are packed in format ' .. format) end
  local blob, o = {format, rows, archived = {count, granted, prepaid}}, 3
  for _ = 1, rows do
    blob[o], blob[o + 1], blob[o + 2], blob[o + 3], blob[o + 4], blob[o + 5], blob[o + 6], at =
      struct.unpack(HOT, raw, at)
    o = o + ROW_WIDTH
  end
  blob[o] = slots
  local s = o + 1
  for _ = 1, slots do
    blob[s], blob[s + 1], blob[s + 2], blob[s + 3], blob[s + 4], at = struct.unpack(SLOT, raw, at)
    s = s + SLOT_WIDTH
  end
  if rows > 0 then
    local cold, c = cmsgpack.unpack(string.sub(raw, at)), 1
    for r = 3, rows * ROW_WIDTH, ROW_WIDTH do
      for i = HOT_WIDTH, ROW_WIDTH - 1 do
        blob[r + i] = cold[c]
        c = c + 1
      end
    end
  end
  return blob
end

-- Packs columns by a format repeated as often as it takes, a bounded number at once.
local function pack_columns(format, values, width)
  local packed, i = '', 1
  while i <= #values do
    local upto = math.min(#values, i + PACKED_MAX * width - 1)
    packed = packed .. struct.pack('>' .. string.rep(string.sub(format, 2), (upto - i + 1) / width), unpack(values, i, upto))
    i = upto + 1
  end
  return packed
end

local function pack_blob(blob)
  local rows, hot, slots, cold = blob[2], {}, {}, {}
  for o = 3, rows * ROW_WIDTH, ROW_WIDTH do
    for i = 0, HOT_WIDTH - 1 do hot[#hot + 1] = blob[o + i] end
    for i = HOT_WIDTH, ROW_WIDTH - 1 do cold[#cold + 1] = blob[o + i] end
  end
  local at = slot_count_at(blob)
  for i = at + 1, at + blob[at] * SLOT_WIDTH do slots[#slots + 1] = blob[i] end
  return struct.pack(COUNTS, FORMAT, rows, blob[at], unpack(blob.archived)) .. pack_columns(HOT, hot, HOT_WIDTH)
    .. pack_columns(SLOT, slots, SLOT_WIDTH) .. (rows > 0 and cmsgpack.pack(cold) or '')
end

-- [format, cid, version, log generation, log sequence number, last ms, flags, next rollover]
local function unpack_header(raw)
  local header = {struct.unpack(HEADER, raw)}
  header[9] = nil
  return header
end

local function pack_header(header) return struct.pack(HEADER, unpack(header, 1, 8)) end
