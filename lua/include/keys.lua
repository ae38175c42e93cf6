-- Names of hash fields, the one place in lua/ that joins strings: all of them ids, no quantity.
local function slot_field(feature_id, entity_id) return 'x:' .. feature_id .. '\0' .. entity_id end
local function bucket_field(feature_id) return 'b:' .. feature_id end
local function attached_field(feature_id) return 'a:' .. feature_id end
local function entity_field(entity_id) return 'e:' .. entity_id end
local function count_field(feature_id) return 'n:' .. feature_id end
local function entity_member(feature_id, entity_id) return feature_id .. '\0' .. entity_id end
local function entry_id(generation) return generation .. '-*' end
local function after_id(generation, seq) return '(' .. generation .. '-' .. seq end
local function log_id(generation, seq) return generation .. '-' .. seq end
