-- The packed forms of a state (struct formats), which sidecar/domain/layout.py has too.
local FORMAT = 1
local COUNTS, HOT, SLOT, HEADER = '>BI2I2', '>I4i8i8I2i8i8i8', '>I4i8i8', '>Bi8i8i8i8i8B'
local HOT_WIDTH = 7
local COUNTS_SIZE, HOT_SIZE, BALANCE_AT, BALANCE_SIZE = 5, 46, 4, 8
