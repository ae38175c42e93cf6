-- The order of spending between two buckets: docs/balances.md, "Order of spending". Rows are stored
-- in this order; what belongs to an entity and what to the customer is the walk's business.
local NEVER = MAX
local LENGTH_MS = {
  [0] = 0, [1] = 60000, [2] = 3600000, [3] = 86400000, [4] = 604800000,
  [5] = 2592000000, [6] = 7776000000, [7] = 15552000000, [8] = 31536000000,
}

-- Whether one id comes before another byte by byte, as Redis orders them; `<` goes by locale.
local function id_before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- Whether the row at a[i] is spent before the row at b[j]; of slots, also given their entities.
local function spends_before(a, i, b, j, entity_a, entity_b)
  local fa, fb = a[i + FLAGS], b[j + FLAGS]
  local x, y = has(fa, ROLLOVER), has(fb, ROLLOVER)
  if x ~= y then return x end
  if x then
    x, y = a[i + EXPIRES], b[j + EXPIRES]
    if x ~= y then return y == 0 or (x ~= 0 and x < y) end
    if entity_a and entity_b and entity_a ~= entity_b then return id_before(entity_a, entity_b) end
    x, y = a[i + CREATED], b[j + CREATED]
    if x ~= y then return x < y end
    return a[i] < b[j]
  end
  x, y = has(fa, UNLIMITED), has(fb, UNLIMITED)
  if x ~= y then return x end
  x, y = a[i + INTERVAL], b[j + INTERVAL]
  if (x == 0) ~= (y == 0) then return x ~= 0 end
  x, y = LENGTH_MS[x] * a[i + INTERVAL_COUNT], LENGTH_MS[y] * b[j + INTERVAL_COUNT]
  if x ~= y then return x < y end
  x, y = a[i + EXPIRES], b[j + EXPIRES]
  if x == 0 then x = NEVER end
  if y == 0 then y = NEVER end
  if x ~= y then return x < y end
  if entity_a and entity_b and entity_a ~= entity_b then return id_before(entity_a, entity_b) end
  x, y = has(fa, ADD_ON), has(fb, ADD_ON)
  if x ~= y then return y end
  x, y = has(fa, USAGE_ALLOWED), has(fb, USAGE_ALLOWED)
  if x ~= y then return y end
  x, y = a[i + CREATED], b[j + CREATED]
  if x ~= y then return x < y end
  return a[i] < b[j]
end
