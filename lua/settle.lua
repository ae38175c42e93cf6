--[[
settle: ends a hold: confirmed as it is or at another amount, released, or because its time is over.

KEYS 1 meta        partition meta
KEYS 2 customer    customer state
KEYS 3 log         partition log
KEYS 4 entities    the customer's entity ids
KEYS 5 locks       its open holds by their end
KEYS 6 holds       the partition's open holds by their end
KEYS 7 settled     what became of this hold; has a TTL
KEYS 8 record      idempotency record; given only with a key
ARGV 1 generation  of the partition, as the caller knows it
ARGV 2 run_id      of the server the caller's connection was made to
ARGV 3 carry_debts 1 where overage of free buckets outlives a reset
ARGV 4 lock_id     of the hold
ARGV 5 entity_id   whose hold it is, '' for the customer's
ARGV 6 info        opaque, for the log
ARGV 7 fingerprint of the decoded call; '' without a key
ARGV 8 ttl_ms      life of an idempotency record
ARGV 9 looked_up   generation and cursor of the snapshot in which SQL did not have the key; '' before
ARGV 10 bytes_max  bound of this partition's idempotency records
ARGV 11 count      how many feature fields follow
ARGV 12 action     confirm, release or expire
ARGV 13 final      units used in the end; '' for as many as are held
ARGV 14 customer_id its name
ARGV 15 settled_ttl_ms  how long `settled` is kept
ARGV 16 fields     see include/call.lua; then 1 and the feature
ANSWER OK id outcome final
CODES STALE MISSING ENTITY REPLAY CONFLICT ASK FULL RANGE SLOTS ARCHIVED ABSENT EARLY EXPIRED
--]]
--- @include "fence"
--- @include "formats"
--- @include "ids"
local FIELDS_AT, count, entity_id = 16, tonumber(ARGV[11]), ARGV[5]
--- @include "general"
--- @include "undo"
--- @include "begin_keyed"
if refusal then return refusal end
local raw, action = redis.call('HGET', KEYS[2], lock_field(ARGV[4])), ARGV[12]
if not raw then
  redis.call('ZREM', KEYS[5], ARGV[4])
  redis.call('ZREM', KEYS[6], hold_member(ARGV[14], ARGV[4]))
  return {'ABSENT', redis.call('GET', KEYS[7]) or ''}
end
local gen, seq, packed = unpack(cmsgpack.unpack(raw))
local _, made_ms, expires_at, whose, feature_id, held_units, systems, held_parts, counted, claimed_ms =
  unpack(cmsgpack.unpack(packed))
local late = action ~= 'expire' and expires_at <= now
if late then action = 'expire' end
if action == 'expire' and expires_at > now then return {'EARLY'} end
local code = read_state(values, now)
if code then return {code} end

local final = 0
if action == 'confirm' then final = ARGV[13] == '' and held_units or tonumber(ARGV[13]) end
local same_sign = (final >= 0) == (held_units >= 0)
local sign = held_units < 0 and -1 or 1
local n, d, amounts, of_system = {}, {}, {}, {}
for s = 1, #systems / 3 do n[s], d[s] = systems[3 * s - 1], systems[3 * s] end
for i = 1, #held_parts, 7 do
  amounts[#amounts + 1], of_system[#of_system + 1] = math.abs(held_parts[i + 4]), held_parts[i + 5]
end
local convert = sign > 0 and credits_of or credits_back
local keep = same_sign and math.min(sign * final, sign * held_units) or 0
local kept = walked(amounts, of_system, n, d, keep, convert)

-- What was taken beyond `keep` goes back, last part first; then the buckets have nothing held.
local paid, back = {}, {}
for p = #amounts, 1, -1 do
  local i = (p - 1) * 7
  local of, no, kind, entity, pass = held_parts[i + 1], held_parts[i + 2], held_parts[i + 3], held_parts[i + 4], held_parts[i + 7]
  local blob, o, x = bucket_of(of, no, kind, entity, now)
  if blob and not (blob[o + RESET_AT] > 0 and made_ms < blob[o + RESET_AT]) then
    local t, s = x or blob, not x and o + HELD or find_slot(x, no)
    if s then
      if x then s = s + SLOT_HELD end
      local less = sign * amounts[p]
      -- An entity of that name made since has a share that nothing was taken from.
      if x and sign * (t[s] - less) < 0 then less = t[s] end
      t[s], touched[t] = t[s] - less, true
      changes[#changes + 1] = {'hd', no, kind == 2 and entity or '', -less}
    end
  end
  local undone = amounts[p] - kept[p]
  if undone > 0 and sign > 0 then
    if of_system[p] > 0 and no < 2147483648 then back[of] = (back[of] or 0) + undone end
    give_back(features_at + 1, of, no, kind, entity, undone, made_ms, now, paid)
  elseif undone > 0 then
    take_again(of, no, kind, entity, undone, pass, made_ms, now, paid)
  end
end
if sign > 0 then
  back[feature_id] = held_units - keep
  uncount(counted, back)
end

-- What goes beyond the hold, or the other way, is an ordinary event.
local at, extra, left = features_at + 1, same_sign and final - sign * keep or final, 0
if extra ~= 0 then
  if extra < 0 and archived_in(at) then needs_restore = true end
  local w = build_walk(at, extra, now)
  if extra > 0 then
    for s in pairs(same_sign and w.given or {}) do
      for p, amount in ipairs(amounts) do
        local of = of_system[p]
        if of > 0 and systems[3 * of - 2] == w.id[s] and n[of] == w.n[s] and d[of] == w.d[s] then w.given[s] = w.given[s] + amount end
      end
      w.paid[s] = w.given[s] > 0 and units_of(w.given[s], w.n[s], w.d[s]) or 0
    end
    left = plan_spend(w, extra, 'cap')
  else
    left = plan_refund(w, -extra, 'cap')
  end
  if not left or not in_range(w) then keep_resets(KEYS[2], KEYS[3], ARGV[1], now) return {'RANGE', 1} end
  if w.truncated and left > 0 then keep_resets(KEYS[2], KEYS[3], ARGV[1], now) return {'SLOTS', 1} end
  apply(w, paid)
  if extra > 0 and not count_spend(at, w, extra - left, now) then
    keep_resets(KEYS[2], KEYS[3], ARGV[1], now)
    return {'RANGE', 1}
  end
end
if needs_restore then keep_resets(KEYS[2], KEYS[3], ARGV[1], now) return {'ARCHIVED', 1} end

local outcome = ({confirm = 1, release = 2, expire = 3})[action]
local returned = held_units > 0 and cmsgpack.pack({held_units - (same_sign and keep or 0)}) or cmsgpack.pack({0})
changes[#changes + 1] = {'h-', ARGV[4], outcome, final}
changes[#changes + 1] = {'f', gen, seq, returned}
plain_writes[returned_field(string.format('%d', gen), string.format('%d', seq))] = returned
plain_writes[lock_field(ARGV[4])] = false
pack_touched()
local reply = {outcome, final}
local receipt = fingerprint ~= '' and not late and new_receipt(now + ttl_ms, fingerprint, cmsgpack.pack(reply), packed_cid)
local difference = final - held_units
local events = {}
if difference ~= 0 then events[1] = {feature_id, difference, difference - (extra > 0 and left or -left), paid} end
local id = append(KEYS[3], ARGV[1], difference ~= 0 and 1 or 2, now, whose, ARGV[6], events, receipt or '')
write_changed(KEYS[2])
redis.call('ZREM', KEYS[5], ARGV[4])
redis.call('ZREM', KEYS[6], hold_member(ARGV[14], ARGV[4]))
redis.call('SET', KEYS[7], cmsgpack.pack({outcome, final, now, claimed_ms}), 'PX', ARGV[15])
if receipt then remember(KEYS[1], ledger, KEYS[#KEYS], receipt, ttl_ms, id) end
if late then return {'EXPIRED'} end
return {'OK', id, outcome, final}
