-- The common call, straight on the packed buckets: plain buckets, nothing due, the amount covered
-- without going below zero. It is the walk of plan.lua for that case (a property test holds the two
-- equal); whatever is unusual is left to that.

-- What the buckets in `raw` pay of `amount`: (no, delta, ...), as the log has it, and the blob after
-- it; nil when this is not such a call. The field that pays is number `paying` of the call at `at`.
local function pay_directly(raw, now, amount, at, paying)
  local format, rows, slots = struct.unpack(COUNTS, raw)
  if format ~= FORMAT or slots > 0 then return nil end
  local deltas, left, after = {}, amount, raw
  if paying ~= tonumber(ARGV[at + 1]) then
    deltas = {-1, string.sub(ARGV[FIELDS_AT + paying], 3), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])}
  end
  for place = COUNTS_SIZE + 1, COUNTS_SIZE + rows * HOT_SIZE, HOT_SIZE do
    local no, balance, _, flags, _, due, expires = struct.unpack(HOT, raw, place)
    -- 97: unlimited, per entity or boolean
    if bit.band(flags, 97) ~= 0 or (due > 0 and due <= now) then return nil end
    if left > 0 and balance > 0 and (expires == 0 or expires > now) then
      local take = balance < left and balance or left
      left = left - take
      deltas[#deltas + 1], deltas[#deltas + 2] = no, -take
      after = string.sub(after, 1, place + BALANCE_AT - 1) .. struct.pack('>i8', balance - take)
        .. string.sub(after, place + BALANCE_AT + BALANCE_SIZE)
    end
  end
  if left > 0 then return nil end
  return deltas, after
end

-- The index of the field that pays a call of one feature without entity, and how much of it: the
-- feature's own, or its only credit system where it has none of its own. nil for any other call.
local function payer(values, at)
  local amount = tonumber(ARGV[at + 2])
  if entity_id ~= '' or amount <= 0 or ARGV[at - 1] ~= '1' then return nil end
  for i = 2 + count, 1 + 2 * count do
    if values[i] then return nil end
  end
  local own = tonumber(ARGV[at + 1])
  if values[1 + own] then return own, amount end
  if ARGV[at + 3] ~= '1' or not values[1 + tonumber(ARGV[at + 4])] then return nil end
  local n, d = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  if n == 0 or amount > 9007199254740991 / n then return nil end
  local product = amount * n
  local rest = math.fmod(product, d)
  return tonumber(ARGV[at + 4]), (product - rest) / d + (rest > 0 and 1 or 0)
end

-- Writes what was paid directly, of the call at `at`: the log record, the blob and the header. Returns
-- the entry's id.
local function keep_directly(at, amount, paying, parts, after, receipt)
  local record = {2, 1, cid, now, version, '', ARGV[6], 0, 1, ARGV[at], amount, amount, #parts}
  for i = 1, #parts do record[13 + i] = parts[i] end
  local end_at = 13 + #parts
  record[end_at + 1], record[end_at + 2] = {}, receipt and cmsgpack.pack(receipt) or ''
  local id = redis.call('XADD', KEYS[3], entry_id(ARGV[1]), 'd', cmsgpack.pack(record))
  local seq = tonumber(string.match(id, '%d+$'))
  redis.call('HSET', KEYS[2], 'h', struct.pack(HEADER, FORMAT, cid, version, tonumber(ARGV[1]), seq, now, 0, next_roll),
    ARGV[FIELDS_AT + paying], after)
  return id
end
