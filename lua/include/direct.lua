-- The common call, straight on the packed buckets: one feature, no entity, plain buckets, nothing due, the
-- amount covered without going below zero. It is the walk of plan.lua for that case (a property test holds
-- the two equal); whatever is unusual is left to that. To be fast it makes no closures and no tables.
--
-- Sets `paying`, the number of the field that pays (the feature's own, or its only credit system where it
-- has none of its own), `price`, how much of it, and `uncovered`, what its buckets do not cover: 0 for such a
-- call. Then, if it is to `send`, `after` is the blob after it, and `parts` what was paid, packed, in
-- `part_count` elements.
local at, paying, price, uncovered = features_at + 1, nil, nil, nil
local after, parts, part_count = nil, nil, 0
local amount = read(AMOUNT, ARGV[4])
if state_flags == 0 and amount > 0 and not refusal then
  if not words then
    if values[2] and not values[3] then paying, price = 1, amount end
  elseif entity_id == '' and words[features_at] == 1 then
    local lists, own = false, words[at + 1]
    for i = 2 + count, 1 + 2 * count do lists = lists or values[i] end
    if lists then
      paying = nil
    elseif values[1 + own] then
      paying, price = own, amount
    elseif words[at + 3] == 1 and values[1 + words[at + 4]] then
      local n, d = words[at + 5], words[at + 6]
      if n > 0 and amount <= 9007199254740991 / n then
        local product = amount * n
        local rest = math.fmod(product, d)
        paying, price = words[at + 4], (product - rest) / d + (rest > 0 and 1 or 0)
        parts, part_count = cmsgpack.pack(-1, sub(words[FIELDS_AT + paying], 3), n, d), 4
      end
    end
  end
end
if paying then
  after, uncovered = values[1 + paying], price
  local raw, format, rows, slots = after, read(COUNTS_HEAD, after)
  if format ~= FORMAT or slots > 0 then rows, uncovered = 0, nil end
  for place = COUNTS_SIZE + 1, COUNTS_SIZE + rows * HOT_SIZE, HOT_SIZE do
    local packed_no, balance, flags, due, expires, _
    if uncovered > 0 then
      packed_no, balance, _, flags, _, due, expires = read(HOT_PARTS, raw, place)
    else
      flags, _, due = read(HOT_FLAGS, raw, place + FLAGS_AT)
    end
    -- Bits 1, 32 and 64: unlimited, per entity or boolean.
    if flags % 2 > 0 or flags % 128 > 31 or (due > 0 and due <= now) then uncovered = nil break end
    if uncovered > 0 and balance > 0 and (expires == 0 or expires > now) then
      local take = balance < uncovered and balance or uncovered
      uncovered = uncovered - take
      if send then
        local packed_part = pack('>Bc4Bi8', 206, packed_no, 211, -take)
        parts, part_count = parts and parts .. packed_part or packed_part, part_count + 2
        local packed_rest = sub(after, place + BALANCE_AT + BALANCE_SIZE)
        if place == COUNTS_SIZE + 1 then after = pack(FIRST_BALANCE, after, balance - take) .. packed_rest
        else after = sub(after, 1, place + BALANCE_AT - 1) .. pack('>i8', balance - take) .. packed_rest end
      end
    end
  end
end
