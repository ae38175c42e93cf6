-- What a key stands for already.
--- @include "marks"

-- end_ms, packed cid, fingerprint, reply and entry id of a record; nothing for none.
local function record_parts(stored)
  if not stored then return nil end
  local format, end_ms, packed_cid, fingerprint, at = struct.unpack(RECEIPT, stored)
  if format ~= FORMAT then error('an idempotency record in format ' .. format) end
  local size = string.byte(stored, -1)
  return end_ms, packed_cid, fingerprint, string.sub(stored, at, -size - 2), string.sub(stored, -size - 1, -2)
end

-- What is to be answered instead of making the call; nil when the key is free. `lost_until` is until when
-- SQL may know keys that Redis has forgotten.
local function recall(stored, lost_until, fingerprint, looked_up, now, packed_cid)
  local end_ms, of, print, reply, id = record_parts(stored)
  if end_ms and end_ms > now and of == packed_cid then
    if print == fingerprint then return {'REPLAY', id, reply} end
    return {'CONFLICT'}
  end
  if (tonumber(lost_until) or 0) > now and not asked(KEYS[1], ARGV[1], looked_up) then
    local cid = struct.unpack('>i8', packed_cid)
    return {'ASK', cid}
  end
end
