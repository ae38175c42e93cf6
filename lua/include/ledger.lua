-- How much is remembered under idempotency keys, in one packed field: format, the time's window of ttl/8, the
-- bytes of all, of this window, of each before.

-- The packed ledger (false for none) moved on to now, and the bytes of all.
local function ledger_at(packed, now, ttl_ms)
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
