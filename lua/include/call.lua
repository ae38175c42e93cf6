-- What check and track share: reading the call's state from its arguments, and building the walk of
-- one feature. Arguments from FIELDS_AT on: 'h', the bucket fields of the k features the call
-- touches, then 'e:<entity>' and their fields of that entity, or (no entity) their lists of entities
-- with plans of their own; then the features as (id, index, amount, systems, (index, n, d) ...).
local own, entity_blobs, entity_feature, attached = {}, {}, nil, {}
local loaded = {}

-- Unpacks what was read; returns nil, or the code of why the call cannot go on.
local function read_state(customer_key, values, now)
  local rest = count + 1
  if entity_id ~= '' then
    rest = rest + 1
    entity_feature = values[rest]
    if not entity_feature then return 'ENTITY' end
  end
  for i = 1, count do
    if values[1 + i] then own[i] = adopt(ARGV[FIELDS_AT + i], values[1 + i], now) end
    local raw = values[rest + i]
    if entity_id ~= '' then
      entity_blobs[i] = adopt(ARGV[FIELDS_AT + rest - 1 + i], raw, now)
    elseif raw then
      local feature_id, list = string.sub(ARGV[FIELDS_AT + i], 3), {}
      for _, id in ipairs(cmsgpack.unpack(raw)) do
        local field = slot_field(feature_id, id)
        loaded[field] = adopt(field, redis.call('HGET', customer_key, field), now)
        list[#list + 1] = loaded[field]
      end
      attached[i] = list
    end
  end
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

-- The feature's walk: its own buckets, then the list of all its credit systems'. `only` limits it to
-- the feature itself (0) or to one system (its number).
local function build_walk(at, amount, now, only)
  local w, index, systems = new_walk(), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3])
  local customer_key, entities_key = KEYS[2], KEYS[4]
  local function loader(i)
    local feature_id = string.sub(ARGV[FIELDS_AT + i], 3)
    return function(id)
      local field = slot_field(feature_id, id)
      if not loaded[field] then loaded[field] = adopt(field, redis.call('HGET', customer_key, field), now) end
      return loaded[field]
    end
  end
  if not only or only == 0 then
    if entity_id ~= '' then
      add_entity_rows(w, own[index], entity_blobs[index], entity_id, entity_feature, 0, now)
      merge(w, 1)
    end
    if own[index] then add_customer_rows(w, own[index], 0, now, entity_id ~= '') end
    if entity_id == '' and own[index] and not (amount > 0 and covers(w, amount)) then
      local from = w.m + 1
      add_all_slots(w, own[index], entities_key, loader(index), 0, now)
      merge(w, from, true)
    end
  end
  local own_end = w.m
  if systems > 0 and only ~= 0 and not (only == nil and amount > 0 and covers(w, amount)) then
    local function each(add, by_entity)
      local from = w.m + 1
      for s = 1, systems do
        if not only or only == s then
          local base = at + 4 + (s - 1) * 3
          w.n[s], w.d[s] = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
          w.given[s], w.paid[s] = w.given[s] or 0, w.paid[s] or 0
          add(s, tonumber(ARGV[base]))
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
        if own[i] and not (any and credits and sum >= credits) then
          add_all_slots(w, own[i], entities_key, loader(i), s, now)
        end
      end, true)
    end
  end
  return w
end

-- The packed blobs of every field the call named, for the answer: k of the customer, then k of the
-- entity, or k lists of the entities' with plans of their own.
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
  return customer, entities
end
