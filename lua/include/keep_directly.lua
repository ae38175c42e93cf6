-- Writes what was paid directly: the log record (as `append` in state.lua packs it), the blob and the
-- header. Sets `id`, the entry's.
local record = '\220' .. struct.pack('>I2', 15 + part_count)
  .. cmsgpack.pack(2, 1, cid, now, version, '', ARGV[6], 0, 1, ARGV[at], amount, amount, part_count) .. parts
  .. '\144' .. cmsgpack.pack(receipt)
local id = redis.call('XADD', KEYS[3], entry_id(ARGV[1]), 'd', record)
redis.call('HSET', KEYS[2], 'h',
  struct.pack(HEADER, FORMAT, cid, version, tonumber(ARGV[1]), tonumber(string.sub(id, #ARGV[1] + 2)), now, 0, next_roll),
  ARGV[FIELDS_AT + paying], after)
