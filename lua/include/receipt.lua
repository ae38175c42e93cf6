-- What is remembered under an idempotency key, and how much of it there is. Sets ledger_at, new_receipt
-- and remember, which a call without a key need not have.
-- A receipt is [format, end_ms, cid, fingerprint] packed, then the reply ('' for one that is no more than
-- the entry's id). The log carries that; the record behind it has the entry's id and, last, its length.
local RECEIPT = '>Bi8c8Bc0'
-- Bytes of live records: format, the time's window of ttl/8, the bytes of all, of this window, of each before.
local LEDGER, LEDGER_HEAD, OLDER_AT, WINDOWS = '>Bi8i8i8i8i8i8i8i8i8i8i8', '>Bi8i8i8', 26, 9

-- The packed ledger (false for none) moved on to now, and the bytes of all.
ledger_at = function(packed, now, ttl_ms)
  local window = math.floor(now / (ttl_ms / 8))
  if not packed or string.byte(packed) ~= FORMAT then
    return struct.pack(LEDGER, FORMAT, window, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0
  end
  local _, at, total = struct.unpack(LEDGER_HEAD, packed)
  if at == window then return packed, total end
  local bytes = {struct.unpack(LEDGER, packed)}
  for _ = 1, math.min(window - at, WINDOWS) do
    table.insert(bytes, 4, 0)
    total = total - bytes[4 + WINDOWS]
  end
  return struct.pack(LEDGER, FORMAT, window, total, unpack(bytes, 4, 3 + WINDOWS)), total
end

-- `reply` is packed.
new_receipt = function(end_ms, fingerprint, reply, packed_cid)
  return struct.pack(RECEIPT, FORMAT, end_ms, packed_cid, #fingerprint, fingerprint) .. reply
end

-- Keeps a receipt for so long, of the entry with this id, and counts it in the ledger.
remember = function(meta_key, ledger, record_key, receipt, life_ms, id)
  local record = receipt .. id .. string.char(#id)
  redis.call('SET', record_key, record, 'PX', life_ms)
  local size, format, window, total, current = #record + 100, struct.unpack(LEDGER_HEAD, ledger)
  redis.call('HSET', meta_key, 'ik',
    struct.pack(LEDGER_HEAD, format, window, total + size, current + size) .. string.sub(ledger, OLDER_AT))
end
