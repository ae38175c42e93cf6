-- The packed forms of a state (struct formats), which sidecar/domain/layout.py has too.
local FORMAT = 2
local COUNTS, HOT, SLOT, HEADER = '>BI2I2I2i8i8', '>I4i8i8I2i8i8i8', '>I4i8i8i8i8', '>Bi8i8i8i8i8BI4'
-- The same, of which what a script has no use for as a number stays packed.
local COUNTS_HEAD, HOT_PARTS, HOT_FLAGS, FLAGS_AT = '>BI2I2', '>c4i8i8I2i8i8i8', '>I2i8i8', 20
local HEADER_PARTS, CID_AT, HEADER_END, LAST_MS_AT, HEADER_AGAIN = '>c8I4c4i8i8i8Bc4', 2, '>i8B', 34, '>c17i8i8i8Bc4'
local HOT_WIDTH = 7
local COUNTS_SIZE, HOT_SIZE, BALANCE_AT, BALANCE_SIZE = 23, 46, 4, 8
local FIRST_BALANCE = '>c27i8'
local DEAD, CAPS, LOADING, ABSENT = 1, 2, 4, 5
-- What is remembered of a key, and the ledger of how much that is.
local RECEIPT, RECORD_MORE = '>Bi8c8Bc0', 100
local LEDGER, LEDGER_HEAD, LEDGER_COUNTS, OLDER_AT, WINDOWS, LEDGER_SIZE = '>Bi8i8i8i8i8i8i8i8i8i8i8', '>Bi8i8i8', '>c9i8i8', 26, 9, 89
