-- Writes what was paid directly: the log record (what `append` in state.lua packs), the blob and the
-- header. Sets `id`, the entry's. The record is MessagePack joined of what is packed already: 144 begins an
-- empty array, 160 an empty string, 206 and 211 whole numbers of 4 and 8 bytes, 219 a string with its size in
-- 4, 221 an array. What it is where one bucket pays without a key is written out.
local packed_head, packed_count, packed_end = '\221\0\0\0\17\2\1\211', '\206\0\0\0\2', '\144\219\0\0\0\0'
if part_count ~= 2 then
  packed_head, packed_count = struct.pack('>BI4BBB', 221, 15 + part_count, 2, 1, 211), struct.pack('>BI4', 206, part_count)
end
if keyed then packed_end = struct.pack('>BBI4', 144, 219, #receipt) .. receipt end
if words then of_feature = struct.pack('>BBBI4c0B', 0, 1, 219, #words[at], words[at], 211) end
local packed_cid, _, packed_version = struct.unpack(HEADER_IDS, values[1], CID_AT)
local packed_now = struct.pack('>i8', now)
local id = redis.call('XADD', KEYS[3], ARGV[1] .. '-*', 'd',
  packed_head .. packed_cid .. '\211' .. packed_now .. '\206' .. packed_version .. '\160' .. ARGV[5]
  .. of_feature .. ARGV[4] .. '\211' .. ARGV[4] .. packed_count .. parts .. packed_end)
redis.call('HSET', KEYS[2], 'h',
  struct.pack(HEADER_AGAIN, values[1], ARGV[1], string.sub(id, #ARGV[1] + 2), now, 0, packed_roll),
  words and words[FIELDS_AT + paying] or buckets_field, after)
