-- Ids of log entries as stream commands take them.
local function entry_id(generation) return generation .. '-*' end
local function after_id(generation, seq) return '(' .. generation .. '-' .. seq end
local function log_id(generation, seq) return generation .. '-' .. seq end
-- What a partition's meta says of one that is open with nothing out of the ordinary.
local function open_for(run_id, generation) return run_id .. ' ' .. generation end
local function hold_member(customer_id, lock_id) return customer_id .. '\0' .. lock_id end

-- Takes a customer's holds out of the partition's.
local function forget_holds(locks_key, holds_key, customer_id)
  for _, lock_id in ipairs(redis.call('ZRANGE', locks_key, 0, -1)) do
    redis.call('ZREM', holds_key, hold_member(customer_id, lock_id))
  end
end
