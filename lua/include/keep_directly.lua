-- Writes what was paid directly: the log record (what `append` in state.lua packs), the blob and the
-- header. Sets `id`, the entry's. The record is MessagePack put together in one go: 144 begins an empty
-- array, 206 and 211 whole numbers of 4 and 8 bytes, 219 a string with its size in 4, 221 an array.
local record = struct.pack('>BI4BBBi8Bi8BI4BBI4c0BBBI4c0Bi8Bi8BI4',
  221, 15 + part_count, 2, 1, 211, cid, 211, now, 206, version, 160, 219, #ARGV[6], ARGV[6], 0, 1, 219, #ARGV[at], ARGV[at],
  211, amount, 211, amount, 206, part_count) .. parts .. struct.pack('>BBI4', 144, 219, #receipt) .. receipt
local id = redis.call('XADD', KEYS[3], ARGV[1] .. '-*', 'd', record)
redis.call('HSET', KEYS[2], 'h', struct.pack(HEADER, FORMAT, cid, version, ARGV[1], string.sub(id, #ARGV[1] + 2), now, 0, next_roll),
  ARGV[FIELDS_AT + paying], after)
