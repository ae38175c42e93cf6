-- The fence every script begins with, and the script's clock: now in milliseconds, or nil when this partition
-- is not open for the caller's generation on the server process its connection was made to. `run` of the meta
-- says the latter, and behind it the generation where a call need look at nothing else: see opened.lua.
--- @include "ids"
local function fence(meta_key, generation, run_id)
  local meta = redis.call('HMGET', meta_key, 'gen', 'run', 'off')
  if meta[1] ~= generation or (meta[2] ~= run_id and meta[2] ~= open_for(run_id, generation)) then return nil end
  local offset = meta[3] or 0
--- @include "clock"
  return now
end
