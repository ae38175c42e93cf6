-- How buckets are packed: sidecar/domain/layout.py has the same numbers, a test compares them.
-- A blob is one flat array: [format, rows, row * rows, slots, slot * slots]; `o` is the index of a
-- row's (or slot's) first column, its number.
local FORMAT = 1
local ROW_WIDTH, SLOT_WIDTH = 18, 3
local BALANCE, GRANTED, FLAGS, PURCHASABLE, NEXT_RESET, EXPIRES, ANCHOR = 1, 2, 3, 4, 5, 6, 7
local INTERVAL, INTERVAL_COUNT, ENTITY, PREPAID, CREATED = 8, 9, 10, 12, 14
local SLOTS, OVER, ENTITY_FEATURE = 15, 16, 17
local PERIOD = 2
local UNLIMITED, USAGE_ALLOWED, CONTINUOUS, ADD_ON, PER_ENTITY, BOOLEAN, PAID = 1, 2, 8, 16, 32, 64, 128
local MAX = 9007199254740991
local USED_HIGH_UNIT = 4503599627370496
local has = function(flags, flag) return bit.band(flags, flag) ~= 0 end

-- The index of the slot count, which follows the rows.
local function slot_count_at(blob) return 3 + blob[2] * ROW_WIDTH end

local function new_blob() return {FORMAT, 0, 0} end

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
