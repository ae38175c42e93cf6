-- The fence every script begins with, and the script's clock.

-- Now in milliseconds (Redis TIME plus the test clock's offset), or nil when this partition is not
-- open for the caller's generation on the server process its connection was made to. `meta` are the
-- partition's fields gen, run and off.
local function opened(meta, generation, run_id)
  if meta[1] ~= generation or meta[2] ~= run_id then return nil end
  local time = redis.call('TIME')
  local us = time[2] + 0
  return time[1] * 1000 + (us - us % 1000) / 1000 + (meta[3] or 0)
end
local function fence(meta_key, generation, run_id) return opened(redis.call('HMGET', meta_key, 'gen', 'run', 'off'), generation, run_id) end
