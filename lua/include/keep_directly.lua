-- Writes what was paid directly: the log record (what `append` in state.lua packs), the blob and the
-- header; with a key the record behind it, of the reply in `packed_reply`, counted in the ledger (what receipt.lua
-- does). Sets `id`, the entry's. The log record is MessagePack joined of what is packed already: 144 begins an
-- empty array, 160 an empty string, 206 and 211 whole numbers of 4 and 8 bytes, 219 a string with its size in
-- 4, 221 an array. What it is where one bucket pays without a key is written out.
local packed_head, packed_count, packed_end = '\221\0\0\0\17\2\1\211', '\206\0\0\0\2', '\144\219\0\0\0\0'
if part_count ~= 2 then
  packed_head, packed_count = pack('>BI4BBB', 221, 15 + part_count, 2, 1, 211), pack('>BI4', 206, part_count)
end
if keyed then
  receipt = pack('>Bi8', FORMAT, now + ttl_ms) .. packed_cid .. sub(ARGV[6], FINGERPRINT_AT - 1) .. packed_reply
  packed_end = pack('>BBI4', 144, 219, #receipt) .. receipt
end
if words then of_feature = pack('>BBBI4c0B', 0, 1, 219, #words[at], words[at], 211) end
local packed_amount = ARGV[4]
local id = call('XADD', KEYS[3], ARGV[1] .. '-*', 'd',
  packed_head .. packed_cid .. '\211' .. pack('>i8', now) .. '\206' .. packed_version .. '\160' .. ARGV[5]
  .. of_feature .. packed_amount .. '\211' .. packed_amount .. packed_count .. parts .. packed_end)
call('HSET', KEYS[2], 'h', pack(HEADER_AGAIN, packed_header, ARGV[1], sub(id, #ARGV[1] + 2), now, 0, packed_roll),
  words and words[FIELDS_AT + paying] or buckets_field, after)
if keyed then
  local record = receipt .. id .. string.char(#id)
  call('SET', keyed, record, 'PX', ttl_ms)
  local size = #record + RECORD_MORE
  call('HSET', KEYS[1], 'ik', pack(LEDGER_HEAD, FORMAT, window, ledger_bytes + size, window_bytes + size) .. sub(ledger, OLDER_AT))
end
