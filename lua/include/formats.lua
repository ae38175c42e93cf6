-- The packed forms of a state (struct formats), which sidecar/domain/layout.py has too.
local FORMAT = 2
local COUNTS, HOT, SLOT, HEADER = '>BI2I2I2i8i8', '>I4i8i8I2i8i8i8', '>I4i8i8i8i8', '>Bi8i8i8i8i8BI4'
-- The same, of which what a script has no use for as a number stays packed.
local COUNTS_HEAD, HOT_BEGIN, HOT_END, FLAGS_AT = '>BI2I2', '>c4i8', '>I2i8i8i8', 20
local HEADER_IDS, CID_AT, HEADER_END, LAST_MS_AT, HEADER_AGAIN = '>c8I4c4', 2, '>i8Bc4', 34, '>c17i8i8i8Bc4'
local HOT_WIDTH = 7
local COUNTS_SIZE, HOT_SIZE, BALANCE_AT, BALANCE_SIZE = 23, 46, 4, 8
local DEAD, CAPS, LOADING, ABSENT = 1, 2, 4, 5
