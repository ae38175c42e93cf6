-- What check and track share: reading the call's state from its arguments, and building the walk of
-- one feature. Arguments from FIELDS_AT on: 'h', the bucket fields of the k features the call
-- touches, then 'e:<entity>' and their fields of that entity, or (no entity) their lists of entities
-- with plans of their own; then the features as (id, index, amount, systems, (index, n, d) ...).
local own, entity_blobs, attached, field_ids = {}, {}, {}, {}

-- Unpacks what was read; returns nil, or the code of why the call cannot go on.
local function read_state(values, now)
  local rest = count + 1
  if entity_id ~= '' then
    rest = rest + 1
    entity_feature = values[rest]
    if not entity_feature then return 'ENTITY' end
  end
  for i = 1, count do
    field_ids[i] = string.sub(ARGV[FIELDS_AT + i], 3)
    if values[1 + i] then own[i] = adopt(ARGV[FIELDS_AT + i], values[1 + i], now) end
    local raw = values[rest + i]
    if entity_id ~= '' then
      entity_blobs[i] = adopt(ARGV[FIELDS_AT + rest - 1 + i], raw, now)
    elseif raw then
      local list = {}
      for _, id in ipairs(cmsgpack.unpack(raw)) do list[#list + 1] = get(slot_field(field_ids[i], id), now) end
      attached[i] = list
    end
  end
  read_caps(field_ids)
end

-- Whether customer-level rows of a system or feature cover `amount` by themselves, so that no
-- entity's share has to be looked at.
local function covers(w, amount)
  local sum = 0
  for j = 1, w.m do
    if has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then return true end
    local balance = w.t[j][w.o[j] + BALANCE]
    if balance > 0 then sum = sum + balance end
    if sum >= amount then return true end
  end
  return false
end

-- Whether entities have rollovers in a feature's per-entity grants, which come before any bucket.
local function entities_roll(blob, now)
  for o = 3, blob[2] * ROW_WIDTH, ROW_WIDTH do
    local flags = blob[o + FLAGS]
    if not has(flags, ROLLOVER) then return false end
    if has(flags, PER_ENTITY) and blob[o + BALANCE] > 0 and usable(blob, o, now) then return true end
  end
  return false
end

-- What is in force for field i in a walk, as the plan takes it; nil for nothing.
local function limits_of(i, now)
  local caps = caps_of[i]
  if not caps then return nil end
  return {
    control = caps.control, system = caps.system, spend = spend_room(i, field_ids[i], own[i], entity_blobs[i], entity_feature, now),
    window = window_room(i, own[i], entity_blobs[i], now),
  }
end

-- The feature's walk: its own buckets, then the list of all its credit systems'. `only` limits it to
-- the feature itself (0) or to one system (its number).
local function build_walk(at, amount, now, only)
  local w, index, systems = new_walk(), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3])
  w.id[0], w.caps[0] = field_ids[index], limits_of(index, now)
  local function loader(i)
    return function(id) return get(slot_field(field_ids[i], id), now) end
  end
  if not only or only == 0 then
    if entity_id ~= '' then
      add_entity_rows(w, own[index], entity_blobs[index], entity_id, entity_feature, 0, now)
      merge(w, 1)
    end
    if own[index] then add_customer_rows(w, own[index], 0, now, entity_id ~= '') end
    if entity_id == '' and own[index] and (not (amount > 0 and covers(w, amount)) or entities_roll(own[index], now)) then
      local from = w.m + 1
      add_all_slots(w, own[index], loader(index), 0, now)
      merge(w, from, true)
    end
    rollovers_first(w, 1)
  end
  local own_end = w.m
  if systems > 0 and only ~= 0 and not (only == nil and amount > 0 and covers(w, amount)) then
    local function each(add, by_entity)
      local from = w.m + 1
      for s = 1, systems do
        if not only or only == s then
          local base = at + 4 + (s - 1) * 3
          w.n[s], w.d[s] = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
          local i = tonumber(ARGV[base])
          w.given[s], w.paid[s] = w.given[s] or 0, w.paid[s] or 0
          if not w.id[s] then w.id[s], w.caps[s] = field_ids[i], limits_of(i, now) end
          add(s, i)
        end
      end
      if systems > 1 or by_entity then merge(w, from, by_entity) end
    end
    if entity_id ~= '' then
      each(function(s, i) add_entity_rows(w, own[i], entity_blobs[i], entity_id, entity_feature, s, now) end)
      merge(w, own_end + 1)
    end
    each(function(s, i) if own[i] then add_customer_rows(w, own[i], s, now, entity_id ~= '') end end)
    if entity_id == '' then
      each(function(s, i)
        local credits = amount > 0 and credits_of(amount, w.n[s], w.d[s])
        local sum, any = 0, false
        for j = own_end + 1, w.m do
          if w.s[j] == s then
            any = true
            if has(w.kt[j][w.ko[j] + FLAGS], UNLIMITED) then sum = MAX end
            sum = sum + math.max(0, w.t[j][w.o[j] + BALANCE])
          end
        end
        if own[i] and (not (any and credits and sum >= credits) or entities_roll(own[i], now)) then
          add_all_slots(w, own[i], loader(i), s, now)
        end
      end, true)
    end
    rollovers_first(w, own_end + 1)
  end
  return w
end

-- Counts what a plan takes in the windows of its feature (`units`) and of the credit systems that
-- pay. Returns nil past the range, else what was counted where (see count_windows).
local function count_spend(at, w, units, now)
  local index, all = tonumber(ARGV[at + 1]), {}
  local function count_in(i, amount)
    local counted = count_windows(i, field_ids[i], amount, own[i], entity_blobs[i], now)
    for _, value in ipairs(counted or {}) do all[#all + 1] = value end
    return counted
  end
  local is_system = caps_of[index] and caps_of[index].system
  if units > 0 and not is_system and not count_in(index, units) then return nil end
  for s = is_system and 0 or 1, tonumber(ARGV[at + 3]) do
    local drawn = 0
    for j = 1, w.m do
      if w.s[j] == s and w.take[j] > 0 and not has(w.kt[j][w.ko[j] + FLAGS], ROLLOVER) then drawn = drawn + w.take[j] end
    end
    if drawn > 0 and not count_in(s == 0 and index or tonumber(ARGV[at + 1 + 3 * s]), drawn) then return nil end
  end
  return all
end

-- The packed blobs of every field the call named, for the answer: k of the customer, then k of the
-- entity and what it is an entity of, or k lists of the entities' with plans of their own.
local function shown()
  local customer, entities = {}, {}
  for i = 1, count do
    customer[i] = own[i] and raws[own[i]] or ''
    if entity_id ~= '' then
      entities[i] = raws[entity_blobs[i]]
    else
      local list = {}
      for _, blob in ipairs(attached[i] or {}) do list[#list + 1] = raws[blob] end
      entities[i] = list
    end
  end
  if entity_id ~= '' then entities[count + 1] = entity_feature end
  return customer, entities
end

-- Whether a feature of the call, or a credit system of it, has buckets that left the hot state,
-- which a refund may have to refill.
local function archived_in(at)
  local function any(i)
    return own[i] and own[i].archived[1] > 0 or entity_blobs[i] and entity_blobs[i].archived[1] > 0
  end
  if any(tonumber(ARGV[at + 1])) then return true end
  for s = 1, tonumber(ARGV[at + 3]) do
    if any(tonumber(ARGV[at + 1 + 3 * s])) then return true end
  end
  return false
end
