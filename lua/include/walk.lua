-- The buckets a call may use, in spending order, as parallel arrays (one entry a bucket or slot):
--   t, o    where its balance is: t[o + BALANCE]
--   kt, ko  the row with its terms (the row itself, or for a slot the per-entity bucket)
--   s       0 for the feature's own, else the number of the credit system
--   x, e    for a slot: the entity's blob, and the entity
--   take    what the plan takes from it (negative: gives back); `parts` the same draw by draw, as
--           (entry, amount, pass), in the order in which they were made
--   id      the feature of each s;  caps  what is in force for it (caps.lua)
-- `fresh` marks a slot that is not stored yet, or stands in an earlier period.
local SLOTS_MAX = 1000

local function new_walk()
  return {
    m = 0, t = {}, o = {}, kt = {}, ko = {}, s = {}, x = {}, e = {}, fresh = {}, take = {},
    n = {}, d = {}, given = {}, paid = {}, id = {}, caps = {}, parts = {}, pass = 1, held = false, boolean = false,
    truncated = false,
  }
end

local function usable(blob, o, now)
  local expires = blob[o + EXPIRES]
  return expires == 0 or expires > now
end

local function add_row(w, blob, o, s)
  local m = w.m + 1
  w.m, w.t[m], w.o[m], w.kt[m], w.ko[m], w.s[m], w.take[m] = m, blob, o, blob, o, s, 0
end

-- Adds the slot of `entity_id` in the per-entity bucket at parent[po]; a slot that is not stored, or
-- is of an earlier period, stands at the bucket's grant.
local function add_slot(w, parent, po, x, entity_id, s)
  local m = w.m + 1
  local t, o = x, find_slot(x, parent[po])
  if not o or x[o + PERIOD] ~= parent[po + NEXT_RESET] then
    t, o = {parent[po], parent[po + GRANTED], parent[po + NEXT_RESET], 0, 0}, 1
    w.fresh[m] = true
  end
  w.m, w.t[m], w.o[m], w.kt[m], w.ko[m], w.s[m], w.take[m] = m, t, o, parent, po, s, 0
  w.x[m], w.e[m] = x, entity_id
end

-- The customer-level rows of a blob. A per-entity grant is held by the customer, but by an entity
-- only if it is of the entity's feature, which add_entity_rows sees to.
local function add_customer_rows(w, blob, s, now, by_entity)
  local for_all
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    if usable(blob, o, now) then
      local flags = blob[o + FLAGS]
      if has(flags, PER_ENTITY) then
        w.held = w.held or not by_entity
        -- Among the feature's own, an unlimited grant alone pays, so it is needed even when
        -- customer-level rows cover the call.
        if s == 0 and not by_entity and has(flags, UNLIMITED) and blob[o + SLOTS] > 0 then for_all = for_all or o end
      else
        w.held = true
        if has(flags, BOOLEAN) then w.boolean = true else add_row(w, blob, o, s) end
      end
    end
  end
  if for_all then add_row(w, blob, for_all, s) end
end

-- The rows of one entity: those of its own plans, and its share of per-entity grants.
local function add_entity_rows(w, blob, x, entity_id, entity_feature, s, now)
  if x then
    for o = 3, x[2] * ROW_WIDTH, ROW_WIDTH do
      if usable(x, o, now) then
        w.held = true
        if has(x[o + FLAGS], BOOLEAN) then w.boolean = true else add_row(w, x, o, s) end
      end
    end
  end
  if not blob then return end
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local flags = blob[o + FLAGS]
    if has(flags, PER_ENTITY) and blob[o + ENTITY_FEATURE] == entity_feature and usable(blob, o, now) then
      w.held = true
      if has(flags, UNLIMITED) then add_row(w, blob, o, s) else add_slot(w, blob, o, x, entity_id, s) end
    end
  end
end

-- Puts entries from..m into spending order; with `by_entity`, slots of one kind entity by entity.
local function merge(w, from, by_entity)
  local function before(i, j)
    return spends_before(w.kt[i], w.ko[i], w.kt[j], w.ko[j], by_entity and w.e[i], by_entity and w.e[j])
  end
  local in_order, order = true, {from}
  for j = from + 1, w.m do
    in_order, order[j - from + 1] = in_order and not before(j, j - 1), j
  end
  if in_order then return end
  table.sort(order, before)
  for _, list in ipairs({w.t, w.o, w.kt, w.ko, w.s, w.x, w.e, w.fresh, w.take}) do
    local moved = {}
    for k, j in ipairs(order) do moved[k] = list[j] end
    for k = 1, #order do list[from + k - 1] = moved[k] end
  end
end

-- Puts the rollovers among entries from..m before the others: of the feature's own, and of its
-- systems, rollovers are spent before any bucket, whoever has them.
local function rollovers_first(w, from)
  local rolls, rest, seen_other, late = {}, {}, false, false
  for j = from, w.m do
    if has(w.kt[j][w.ko[j] + FLAGS], ROLLOVER) then
      rolls[#rolls + 1], late = j, late or seen_other
    else
      rest[#rest + 1], seen_other = j, true
    end
  end
  if not late and #rolls < 2 then return end
  table.sort(rolls, function(i, j)
    local x, y = w.kt[i][w.ko[i] + EXPIRES], w.kt[j][w.ko[j] + EXPIRES]
    if x ~= y then return y == 0 or (x ~= 0 and x < y) end
    return i < j
  end)
  for _, list in ipairs({w.t, w.o, w.kt, w.ko, w.s, w.x, w.e, w.fresh, w.take}) do
    local moved, k = {}, 0
    for _, order in ipairs({rolls, rest}) do
      for _, j in ipairs(order) do k = k + 1 moved[k] = list[j] end
    end
    for i = 1, k do list[from + i - 1] = moved[i] end
  end
end

-- The finite per-entity rows from `o` on that are alike in interval, expiry and entity feature:
-- they are spent together, entity by entity. Marks them in `done`.
local function rows_alike(blob, o, now, done)
  local alike = {}
  for p = o, blob[2] * ROW_WIDTH, ROW_WIDTH do
    if blob[p + INTERVAL] ~= blob[o + INTERVAL] or blob[p + INTERVAL_COUNT] ~= blob[o + INTERVAL_COUNT]
      or blob[p + EXPIRES] ~= blob[o + EXPIRES] or has(blob[p + FLAGS], ROLLOVER) ~= has(blob[o + FLAGS], ROLLOVER) then break end
    local flags = blob[p + FLAGS]
    if has(flags, PER_ENTITY) and not has(flags, UNLIMITED) and usable(blob, p, now)
      and blob[p + ENTITY_FEATURE] == blob[o + ENTITY_FEATURE] then
      alike[#alike + 1], done[p] = p, true
    end
  end
  return alike
end

-- The slots of every entity in a blob's per-entity grants, in id order, at most SLOTS_MAX; `merge`
-- by entity is to follow. `load(entity_id)` gives an entity's blob; `ids_of` the entities of a
-- feature where those in Redis are not all.
local function add_all_slots(w, blob, load, s, now, ids_of)
  local done = {}
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local flags, feature = blob[o + FLAGS], blob[o + ENTITY_FEATURE]
    if has(flags, PER_ENTITY) and not done[o] and usable(blob, o, now) then
      w.held = true
      if has(flags, UNLIMITED) then
        if s ~= 0 and blob[o + SLOTS] > 0 then add_row(w, blob, o, s) end
      else
        local alike = rows_alike(blob, o, now, done)
        for i, id in ipairs((ids_of or entities_of)(feature, SLOTS_MAX + 1)) do
          if i > SLOTS_MAX or w.m > SLOTS_MAX + 64 then w.truncated = true break end
          local x = load(id)
          for _, p in ipairs(alike) do add_slot(w, blob, p, x, id, s) end
        end
      end
    end
  end
end
