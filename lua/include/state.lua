-- What a call reads of one customer, and how it is written back. `raws` is what Redis holds (or is
-- to hold) of each blob; `due` marks those changed by resets alone, `touched` by the call itself.
local blobs, names, raws, touched, due, by_name = {}, {}, {}, {}, {}, {}
local header, known = nil, 0
-- What the log is to say of resets, of what else they changed, and of what the call itself changed.
local resets, reset_changes, changes = {}, {}, {}
-- Plain fields that change: name to value, false to take it out.
local plain_writes = {}
local reset_due

-- Unpacks one blob, resets what is due in it and remembers where it came from.
local function adopt(name, raw, now)
  if by_name[name] then return by_name[name] end
  local blob = raw and unpack_blob(raw) or new_blob()
  known = known + 1
  blobs[known], names[blob], raws[blob], by_name[name] = blob, name, raw or '', blob
  if raw then reset_due(blob, name, now) end
  return blob
end

local function get(name, now)
  return by_name[name] or adopt(name, redis.call('HGET', KEYS[2], name), now)
end

-- The ids of a customer's entities of a feature, in order.
local function entities_of(feature_id, limit)
  local ids = redis.call('ZRANGEBYLEX', KEYS[4],
    '[' .. entity_member(feature_id, ''), '(' .. entity_member(feature_id, '\255'), 'LIMIT', 0, limit or -1)
  for i = 1, #ids do ids[i] = string.sub(ids[i], #feature_id + 2) end
  return ids
end

-- Packs what the call touched; afterwards raws[] holds what Redis is to hold.
local function pack_touched()
  for i = 1, known do
    local blob = blobs[i]
    if touched[blob] then raws[blob] = pack_blob(blob) end
  end
end

-- Writes the header and every field that changed.
local function write_changed(customer_key)
  local values = {'h', pack_header(header)}
  local function put(name, value)
    values[#values + 1], values[#values + 2] = name, value
    if #values > 1000 then redis.call('HSET', customer_key, unpack(values)) values = {} end
  end
  for i = 1, known do
    local blob = blobs[i]
    if touched[blob] or due[blob] then put(names[blob], raws[blob]) end
  end
  for name, value in pairs(plain_writes) do
    if value then put(name, value) else redis.call('HDEL', customer_key, name) end
  end
  if #values > 0 then redis.call('HSET', customer_key, unpack(values)) end
end

local function extend(record, width, list)
  local at = #record + 1
  record[at] = #list / width
  for i = 1, #list do record[at + i] = list[i] end
end

-- Appends a record to the log and moves the header on to it. Kinds: 1 use, 2 no event, 3 step.
-- `features` is a list of {id, requested, applied, parts}. The shape is documented in
-- sync/records.py.
local function append(log_key, generation, kind, now, entity_id, info, features, receipt)
  local record = {2, kind, header[2], now, header[3], entity_id, info}
  extend(record, 7, resets)
  record[#record + 1] = #features
  for _, feature in ipairs(features) do
    local at = #record
    record[at + 1], record[at + 2], record[at + 3] = feature[1], feature[2], feature[3]
    extend(record, 1, feature[4])
  end
  local all = {}
  for _, list in ipairs({reset_changes, changes}) do
    for i = 1, #list do all[#all + 1] = list[i] end
  end
  record[#record + 1] = all
  record[#record + 1] = receipt
  local id = redis.call('XADD', log_key, entry_id(generation), 'd', cmsgpack.pack(record))
  local seq = tonumber(string.match(id, '%d+$'))
  header[4], header[5], header[6] = tonumber(generation), seq, now
  return id
end

-- Writes what was due anyway (resets) when the call itself changes nothing.
local function keep_resets(customer_key, log_key, generation, now)
  if #resets == 0 then return end
  touched, plain_writes, changes = {}, {}, {}
  append(log_key, generation, 2, now, '', '', {}, '')
  write_changed(customer_key)
end
