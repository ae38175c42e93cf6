-- What a call reads of one customer, and how it is written back. `raws` is what Redis holds (or is
-- to hold) of each blob; `due` marks those changed by resets alone, `touched` by the call itself.
local blobs, names, raws, touched, due, resets = {}, {}, {}, {}, {}, {}
local header, known = nil, 0

-- Unpacks one blob, resets what is due in it and remembers where it came from.
local function adopt(name, raw, now)
  local blob = raw and unpack_blob(raw) or new_blob()
  known = known + 1
  blobs[known], names[blob], raws[blob] = blob, name, raw or ''
  if raw and reset_due(blob, now, resets) then
    due[blob], raws[blob] = true, pack_blob(blob)
  end
  return blob
end

-- Packs what the call touched; afterwards raws[] holds what Redis is to hold.
local function pack_touched()
  for i = 1, known do
    local blob = blobs[i]
    if touched[blob] then raws[blob] = pack_blob(blob) end
  end
end

-- Writes the header and every blob that changed.
local function write_changed(customer_key)
  local values = {'h', pack_header(header)}
  for i = 1, known do
    local blob = blobs[i]
    if touched[blob] or due[blob] then
      values[#values + 1], values[#values + 2] = names[blob], raws[blob]
      if #values > 1000 then redis.call('HSET', customer_key, unpack(values)) values = {} end
    end
  end
  if #values > 0 then redis.call('HSET', customer_key, unpack(values)) end
end

local function extend(record, width, list)
  local at = #record + 1
  record[at] = #list / width
  for i = 1, #list do record[at + i] = list[i] end
end

-- Appends a record to the log and moves the header on to it. Kinds: 1 use, 2 reset, 3 step. The
-- shape is documented in sync/records.py.
local function append(log_key, generation, kind, now, entity_id, info, features, deltas, slots, changes, receipt)
  local record = {1, kind, header[2], now, header[3], entity_id, info}
  extend(record, 5, resets)
  extend(record, 3, features)
  extend(record, 2, deltas)
  extend(record, 5, slots)
  record[#record + 1] = changes
  record[#record + 1] = receipt
  local id = redis.call('XADD', log_key, entry_id(generation), 'd', cmsgpack.pack(record))
  local seq = tonumber(string.match(id, '%d+$'))
  header[4], header[5], header[6] = tonumber(generation), seq, now
  return id
end

-- Writes what was due anyway (resets) when the call itself changes nothing.
local function keep_resets(customer_key, log_key, generation, now)
  if #resets == 0 then return end
  touched = {}
  append(log_key, generation, 2, now, '', '', {}, {}, {}, {}, '')
  write_changed(customer_key)
end
