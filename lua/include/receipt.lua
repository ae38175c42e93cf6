-- Idempotency records: the first answer under a key, replayed until the record's own end. Sets
-- recall, new_receipt and remember, which a call without a key need not have.
-- A receipt is [format, end_ms, cid, fingerprint] packed, then the reply ('' for one that is no more than
-- the entry's id). The log carries that; the record behind it has the entry's id and, last, its length.
local RECEIPT = '>Bi8i8Bc0'
local WINDOWS = 9
local WINDOW_BYTES = '>i8i8i8i8i8i8i8i8i8i8'

-- Bytes of live records: [window, bytes of it, of the one before …] of ttl/8 each, moved on to now.
local function ledger_of_bytes(packed, now, ttl_ms)
  local window = math.floor(now / (ttl_ms / 8))
  local bytes = packed and {struct.unpack(WINDOW_BYTES, packed)} or {window, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  bytes[WINDOWS + 2] = nil
  local moved = math.min(window - bytes[1], WINDOWS)
  for _ = 1, moved do
    table.insert(bytes, 2, 0)
    bytes[#bytes] = nil
  end
  bytes[1] = window
  return bytes
end

-- end_ms, cid, fingerprint, reply and entry id of a record; nothing for none.
local function record_parts(stored)
  if not stored then return nil end
  local format, end_ms, cid, fingerprint, at = struct.unpack(RECEIPT, stored)
  if format ~= FORMAT then error('an idempotency record in format ' .. format) end
  local size = string.byte(stored, -1)
  return end_ms, cid, fingerprint, string.sub(stored, at, -size - 2), string.sub(stored, -size - 1, -2)
end

-- What a key already stands for: nil when it is free (then bytes_ledger is set), else the answer.
local bytes_ledger
recall = function(meta_key, record_key, fingerprint, looked_up, ttl_ms, bytes_max, now, cid)
  local end_ms, of, print, reply, id = record_parts(redis.call('GET', record_key))
  if end_ms and end_ms > now and of == cid then
    if print == fingerprint then return {'REPLAY', id, reply} end
    return {'CONFLICT'}
  end
  local meta = redis.call('HMGET', meta_key, 'kl', 'ik')
  if (tonumber(meta[1]) or 0) > now and not asked(meta_key, ARGV[1], looked_up) then return {'ASK', cid} end
  bytes_ledger = ledger_of_bytes(meta[2], now, ttl_ms)
  local total = 0
  for i = 2, WINDOWS + 1 do total = total + bytes_ledger[i] end
  if total > bytes_max then return {'FULL'} end
end

-- The part of a record that the log carries too; `reply` is packed.
new_receipt = function(end_ms, fingerprint, reply, cid)
  return struct.pack(RECEIPT, FORMAT, end_ms, cid, #fingerprint, fingerprint) .. reply
end

-- Keeps a receipt for so long, of the entry with this id.
remember = function(meta_key, record_key, receipt, life_ms, id)
  local record = receipt .. id .. string.char(#id)
  redis.call('SET', record_key, record, 'PX', life_ms)
  bytes_ledger[2] = bytes_ledger[2] + #record + 100
  redis.call('HSET', meta_key, 'ik', struct.pack(WINDOW_BYTES, unpack(bytes_ledger)))
end
