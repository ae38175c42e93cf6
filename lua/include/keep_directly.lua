-- Writes what was paid directly: the log record (what `append` in state.lua packs), the blob and the
-- header; with a key the record behind it, of the reply in `packed_reply`, counted in the ledger (what receipt.lua
-- does). Sets `id`, the entry's. The log record is MessagePack joined of what is packed already: 144 begins an
-- empty array, 160 an empty string, 206 and 211 whole numbers of 4 and 8 bytes, 219 a string with its size in
-- 4, 221 an array. What it is where one bucket pays, and the size of a brief call's
-- receipt, is written out.
local packed_head, packed_count, packed_size = '\221\0\0\0\17\2\1\211', '\206\0\0\0\2', '\0\0\0\0'
if part_count ~= 2 then
  packed_head, packed_count = pack('>BI4BBB', 221, 15 + part_count, 2, 1, 211), pack('>BI4', 206, part_count)
end
local end_ms
if keyed then
  end_ms = now + ttl_ms
  receipt = pack('>Bi8', FORMAT, end_ms) .. packed_cid .. sub(ARGV[6], FINGERPRINT_AT - 1) .. packed_reply
  packed_size = #receipt == 34 and '\0\0\0\34' or pack('>I4', #receipt)
end
if words then of_feature = pack('>BBBI4c0B', 0, 1, 219, #words[at], words[at], 211) end
local packed_amount = ARGV[4]
local id = call('XADD', KEYS[3], generation .. '-*', 'd',
  packed_head .. packed_cid .. '\211' .. pack('>i8', now) .. '\206' .. packed_version .. '\160' .. ARGV[5]
  .. of_feature .. packed_amount .. '\211' .. packed_amount .. packed_count .. parts .. '\144\219' .. packed_size .. receipt)
call('HSET', KEYS[2], 'h', pack(HEADER_AGAIN, packed_header, generation, sub(id, #generation + 2), now, 0, packed_roll),
  words and words[FIELDS_AT + paying] or buckets_field, after)
if keyed then
  local record = receipt .. id .. string.char(#id)
  call('SET', keyed, record, 'PXAT', end_ms - offset)  -- Redis would make this of PX, for its file
  local size = #record + RECORD_MORE
  call('HSET', meta_key, 'ik', pack(LEDGER_COUNTS, ledger, ledger_bytes + size, window_bytes + size) .. sub(ledger, OLDER_AT))
end
