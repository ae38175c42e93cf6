-- What is remembered under an idempotency key, and how much of it there is.
-- A receipt is [format, end_ms, cid, fingerprint] packed, then the reply ('' for one that is no more than
-- the entry's id). The log carries that; the record behind it has the entry's id and, last, its length.
local RECEIPT = '>Bi8i8Bc0'
-- Bytes of live records: the time's window of ttl/8, the bytes of all, of this window, of each before.
local LEDGER, LEDGER_HEAD, OLDER_AT, WINDOWS = '>i8i8i8i8i8i8i8i8i8i8i8', '>i8i8i8', 25, 9

-- The packed ledger (false for none) moved on to now, and the bytes of all.
local function ledger_at(packed, now, ttl_ms)
  local window = math.floor(now / (ttl_ms / 8))
  if not packed then return struct.pack(LEDGER, window, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0 end
  local at, total = struct.unpack(LEDGER_HEAD, packed)
  if at == window then return packed, total end
  local bytes = {struct.unpack(LEDGER, packed)}
  for _ = 1, math.min(window - at, WINDOWS) do
    table.insert(bytes, 3, 0)
    total = total - bytes[3 + WINDOWS]
  end
  return struct.pack(LEDGER, window, total, unpack(bytes, 3, 2 + WINDOWS)), total
end

-- `reply` is packed.
local function new_receipt(end_ms, fingerprint, reply, cid) return struct.pack(RECEIPT, FORMAT, end_ms, cid, #fingerprint, fingerprint) .. reply end

-- Keeps a receipt for so long, of the entry with this id, and counts it in the ledger.
local function remember(meta_key, ledger, record_key, receipt, life_ms, id)
  local record = receipt .. id .. string.char(#id)
  redis.call('SET', record_key, record, 'PX', life_ms)
  local size, window, total, current = #record + 100, struct.unpack(LEDGER_HEAD, ledger)
  redis.call('HSET', meta_key, 'ik', struct.pack(LEDGER_HEAD, window, total + size, current + size) .. string.sub(ledger, OLDER_AT))
end
