-- What limits a customer's spending beside balances: docs/balances.md, "Caps". Read only for
-- customers whose header says that there are any. For field i of the call:
--   caps_of[i] = {control = -1 none | 0 off | 1 on, spends = {kind, value ...} or nil, own_spends =
--   whether that is the entity's own, windows = {limit, interval, anchor ...} or nil, own_windows,
--   system = whether it is a credit system, of whose credits windows count what its buckets give}
local caps_of, counters, counter_names = {}, {}, {}
local entity_feature

local function read_caps(fields)
  if bit.band(header[7], CAPS) == 0 or #fields == 0 then return end
  local names = {}
  for i = 1, #fields do
    names[#names + 1], names[#names + 2] = caps_field(fields[i]), window_field(fields[i])
    if entity_id ~= '' then
      names[#names + 1], names[#names + 2] = own_caps_field(fields[i], entity_id), own_window_field(fields[i], entity_id)
    end
  end
  local values, width = redis.call('HMGET', KEYS[2], unpack(names)), entity_id ~= '' and 4 or 2
  for i = 1, #fields do
    local at = (i - 1) * width
    local shared, own = values[at + 1], width == 4 and values[at + 3]
    if shared or own then
      local caps = {control = -1, own_spends = false, own_windows = false, system = cmsgpack.unpack(shared or own)[5] == 1}
      if shared then
        local packed = cmsgpack.unpack(shared)
        caps.spends, caps.control, caps.windows = packed[2], packed[3], packed[4]
      end
      if own then
        local packed = cmsgpack.unpack(own)
        if packed[2] then caps.spends, caps.own_spends = packed[2], true end
        if packed[3] >= 0 then caps.control = packed[3] end
        if packed[4] then caps.windows, caps.own_windows = packed[4], true end
      end
      caps_of[i] = caps
      local raw = values[at + (caps.own_windows and 4 or 2)]
      counters[i] = raw and cmsgpack.unpack(raw) or {2}
      counter_names[i] = names[at + (caps.own_windows and 4 or 2)]
    end
  end
end

-- The blobs of all entities that have buckets of their own of field i.
local function attached_blobs(i, feature_id, now)
  local raw, list = redis.call('HGET', KEYS[2], attached_field(feature_id)), {}
  for _, id in ipairs(raw and cmsgpack.unpack(raw) or {}) do list[#list + 1] = get(slot_field(feature_id, id), now) end
  return list
end

-- What a spend limit still leaves of field i's overage, the limit, and the overage there is; nil where
-- none is in force.
local function spend_room(i, feature_id, blob, entity_blob, entity_feature, now)
  local caps = caps_of[i]
  if not caps or not caps.spends or #caps.spends == 0 then return nil end
  local over, base = 0, 0
  local function count(x, rows_of_entity)
    for o = 3, x[2] * ROW_WIDTH, ROW_WIDTH do
      local flags, balance = x[o + FLAGS], x[o + BALANCE]
      if usable(x, o, now) and not has(flags, UNLIMITED) and not has(flags, BOOLEAN) and not has(flags, ROLLOVER) then
        local below, times = math.max(0, -balance), 1
        if has(flags, PER_ENTITY) and not rows_of_entity then
          below, times = x[o + OVER], x[o + SLOTS]
          if caps.own_spends then
            local s = x[o + ENTITY_FEATURE] == entity_feature and entity_blob and find_slot(entity_blob, x[o])
            below = s and entity_blob[s + PERIOD] == x[o + NEXT_RESET] and math.max(0, -entity_blob[s + BALANCE]) or 0
            times = x[o + ENTITY_FEATURE] == entity_feature and 1 or 0
          end
        end
        over = over + below
        if x[o + INTERVAL] ~= 0 and x[o + PLAN] ~= '' and not has(flags, ADD_ON) then
          base = base + x[o + GRANTED] * times
        end
      end
    end
  end
  if blob then count(blob) end
  if caps.own_spends then
    if entity_blob then count(entity_blob, true) end
  else
    for _, x in ipairs(attached_blobs(i, feature_id, now)) do count(x, true) end
  end
  local limit
  for at = 1, #caps.spends, 2 do
    local one = caps.spends[at + 1]
    -- A percentage of nothing is no limit.
    if caps.spends[at] == 1 then one = base > 0 and credits_back(base, one, 1000000) end
    if one and (not limit or one < limit) then limit = one end
  end
  return limit and math.max(0, limit - over), limit, over
end

-- The anchor of the first bucket that resets, in spending order: of the customer, those of its own
-- before grants per entity; of an entity with windows of its own, its buckets before the customer's.
local function first_anchor(blob, entity_blob, entity_feature, now)
  local found, at
  local function look(x, wanted)
    for o = 3, x and x[2] * ROW_WIDTH or 0, ROW_WIDTH do
      local flags = x[o + FLAGS]
      if x[o + INTERVAL] ~= 0 and usable(x, o, now) and not has(flags, ROLLOVER) and wanted(flags, x[o + ENTITY_FEATURE])
        and (not found or spends_before(x, o, found, at)) then found, at = x, o end
    end
  end
  if entity_blob then
    look(entity_blob, function() return true end)
    look(blob, function(flags, feature) return has(flags, PER_ENTITY) and feature == entity_feature end)
  end
  if not found then look(blob, function(flags) return not has(flags, PER_ENTITY) end) end
  if not found and not entity_blob then look(blob, function() return true end) end
  return found and found[at + ANCHOR]
end

-- The bounds of a window now: by the calendar, or counted from the anchor of the first bucket that
-- resets.
local function window_bounds(interval, anchor, blob, entity_blob, now)
  local origin = anchor == 0 and first_anchor(blob, entity_blob, entity_feature, now)
  if not origin then return utc_window(interval, now) end
  local k = index_at(origin, interval, 1, now)
  return at_index(origin, interval, 1, k), at_index(origin, interval, 1, k + 1)
end

-- The counter of one window of field i: its index in counters[i], brought to the present window.
local function counter_at(i, interval, anchor, blob, entity_blob, now)
  local list = counters[i]
  local starts, ends = window_bounds(interval, anchor, blob, caps_of[i].own_windows and entity_blob or nil, now)
  local at
  for c = 2, #list, 5 do
    if list[c] == interval and list[c + 1] == anchor then at = c end
  end
  if not at then
    at = #list + 1
    list[at], list[at + 1], list[at + 2], list[at + 3], list[at + 4] = interval, anchor, starts, ends, 0
  elseif list[at + 2] ~= starts then
    list[at + 2], list[at + 3], list[at + 4] = starts, ends, 0
  end
  return at
end

-- What the windows of field i leave; nil where there are none.
local function window_room(i, blob, entity_blob, now)
  local caps, room = caps_of[i], nil
  if not caps or not caps.windows then return nil end
  for at = 1, #caps.windows, 3 do
    local c = counter_at(i, caps.windows[at + 1], caps.windows[at + 2], blob, entity_blob, now)
    local left = math.max(0, caps.windows[at] - counters[i][c + 4])
    if not room or left < room then room = left end
  end
  return room
end

-- Counts `units` in every window of field i. Returns nil past the range, else a list of what was
-- counted where, as (feature, entity or '', interval, anchor, start, units).
local function count_windows(i, feature_id, units, blob, entity_blob, now)
  local caps, counted, seen = caps_of[i], {}, {}
  if not caps or not caps.windows or #caps.windows == 0 or units == 0 then return counted end
  local whose = caps.own_windows and entity_id or ''
  for at = 1, #caps.windows, 3 do
    local interval, anchor = caps.windows[at + 1], caps.windows[at + 2]
    local c = counter_at(i, interval, anchor, blob, entity_blob, now)
    if not seen[c] then
      seen[c] = true
      local list = counters[i]
      if list[c + 4] + units > MAX then return nil end
      list[c + 4] = list[c + 4] + units
      for _, value in ipairs({feature_id, whose, interval, anchor, list[c + 2], units}) do counted[#counted + 1] = value end
      changes[#changes + 1] = {'w', feature_id, whose, interval, anchor, list[c + 2], list[c + 3], units}
    end
  end
  plain_writes[counter_names[i]] = cmsgpack.pack(counters[i])
  return counted
end
