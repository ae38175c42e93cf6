-- What is remembered under an idempotency key; keep_directly.lua does the same for the common call.
-- A receipt is [format, end_ms, cid, fingerprint] packed, then the reply ('' for one that is no more than
-- the entry's id). The log carries that; the record behind it has the entry's id and, last, its length.

-- `reply` is packed.
local function new_receipt(end_ms, fingerprint, reply, packed_cid)
  return struct.pack(RECEIPT, FORMAT, end_ms, packed_cid, #fingerprint, fingerprint) .. reply
end

-- Keeps a receipt for so long, of the entry with this id, and counts it in the ledger.
local function remember(meta_key, ledger, record_key, receipt, life_ms, id)
  local record = receipt .. id .. string.char(#id)
  redis.call('SET', record_key, record, 'PX', life_ms)
  local size, format, window, total, current = #record + RECORD_MORE, struct.unpack(LEDGER_HEAD, ledger)
  redis.call('HSET', meta_key, 'ik',
    struct.pack(LEDGER_HEAD, format, window, total + size, current + size) .. string.sub(ledger, OLDER_AT))
end
