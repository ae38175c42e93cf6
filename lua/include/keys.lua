-- Names of hash fields: with ids.lua the only places in lua/ that join strings: ids, no quantity.
local function slot_field(feature_id, entity_id) return 'x:' .. feature_id .. '\0' .. entity_id end
local function bucket_field(feature_id) return 'b:' .. feature_id end
local function attached_field(feature_id) return 'a:' .. feature_id end
local function entity_field(entity_id) return 'e:' .. entity_id end
local function count_field(feature_id) return 'n:' .. feature_id end
local function entity_member(feature_id, entity_id) return feature_id .. '\0' .. entity_id end
local function caps_field(feature_id) return 'k:' .. feature_id end
local function own_caps_field(feature_id, entity_id) return 'k:' .. feature_id .. '\0' .. entity_id end
local function window_field(feature_id) return 'w:' .. feature_id end
local function own_window_field(feature_id, entity_id) return 'w:' .. feature_id .. '\0' .. entity_id end
local function lock_field(lock_id) return 'l:' .. lock_id end
local function returned_field(gen, seq) return 'r:' .. gen .. '-' .. seq end
-- The feature that a field of buckets is of.
local function feature_of(name) return string.match(name, '^%a:([^%z]*)') end
