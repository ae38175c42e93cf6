-- Ids of log entries as stream commands take them.
local function entry_id(generation) return generation .. '-*' end
local function after_id(generation, seq) return '(' .. generation .. '-' .. seq end
local function log_id(generation, seq) return generation .. '-' .. seq end
