-- What a call begins with that is not the common one: its arguments as other scripts have them one by one
-- (generation, run_id, carry_debts, mode, entity_id, count, the fields, the number of features and the features,
-- with their amounts), and everything it may take.
local info, fingerprint = send and cmsgpack.unpack(ARGV[5]), keyed and sub(ARGV[6], FINGERPRINT_AT)
if not words then
  local _, _, _, _, _, words_at = read(CALL, ARGV[3])
  words = cmsgpack.unpack(sub(ARGV[3], words_at))
end
words[1], words[2] = ARGV[1], ARGV[2]
local feature_at = features_at + 1
for f = 1, words[features_at] do
  words[feature_at + 2] = read(AMOUNT, ARGV[4], 8 * f - 7)
  feature_at = feature_at + 4 + 3 * words[feature_at + 3]
end
local ARGV = words
packed_cid = sub(packed_header, CID_AT, CID_AT + 7)
--- @include "ids"
--- @include "general"
--- @include "judge"
--- @include "receipt"
header = unpack_header(packed_header)
local code = read_state(values, now)
if code then return {code} end
