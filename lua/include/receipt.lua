-- Idempotency records: the first answer under a key, replayed until the record's own end. Sets
-- recall, new_receipt and remember, which a call without a key need not have.
-- Record: [1, end_ms, cid, fingerprint, reply, entry id]; the log carries the first five.
local WINDOWS = 9

-- Bytes of live records: [window, bytes of it, of the one before …] of ttl/8 each, moved on to now.
local function ledger_of_bytes(packed, now, ttl_ms)
  local window = math.floor(now / (ttl_ms / 8))
  local bytes = packed and cmsgpack.unpack(packed) or {window, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  local moved = math.min(window - bytes[1], WINDOWS)
  for _ = 1, moved do
    table.insert(bytes, 2, 0)
    bytes[#bytes] = nil
  end
  bytes[1] = window
  return bytes
end

-- What a key already stands for: nil when it is free (then bytes_ledger is set), else the answer.
local bytes_ledger
recall = function(meta_key, record_key, fingerprint, looked_up, ttl_ms, bytes_max, now, cid)
  local stored = redis.call('GET', record_key)
  if stored then
    local record = cmsgpack.unpack(stored)
    if record[2] > now and record[3] == cid then
      if record[4] == fingerprint then return {'REPLAY', record[6], record[5]} end
      return {'CONFLICT'}
    end
  end
  local meta = redis.call('HMGET', meta_key, 'kl', 'ik')
  if (tonumber(meta[1]) or 0) > now and not asked(meta_key, ARGV[1], looked_up) then return {'ASK', cid} end
  bytes_ledger = ledger_of_bytes(meta[2], now, ttl_ms)
  local total = 0
  for i = 2, WINDOWS + 1 do total = total + bytes_ledger[i] end
  if total > bytes_max then return {'FULL'} end
end

-- The part of a record that the log carries too.
new_receipt = function(now, ttl_ms, fingerprint, reply, cid)
  return {1, now + ttl_ms, cid, fingerprint, cmsgpack.pack(reply)}
end

remember = function(meta_key, record_key, receipt, ttl_ms, id)
  receipt[6] = id
  local packed = cmsgpack.pack(receipt)
  redis.call('SET', record_key, packed, 'PX', ttl_ms)
  bytes_ledger[2] = bytes_ledger[2] + #packed + 100
  redis.call('HSET', meta_key, 'ik', cmsgpack.pack(bytes_ledger))
end
