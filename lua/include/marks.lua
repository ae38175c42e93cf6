-- Comparing log ids, which are pairs (generation, sequence).
local function before(gen_a, seq_a, gen_b, seq_b) return gen_a < gen_b or (gen_a == gen_b and seq_a < seq_b) end

-- A mark kept in a partition's meta as two fields; (0, -1) if it was never set.
local function mark(meta_key, gen_field, seq_field)
  local found = redis.call('HMGET', meta_key, gen_field, seq_field)
  return tonumber(found[1]) or 0, tonumber(found[2]) or -1
end

local function raise_mark(meta_key, gen_field, seq_field, gen, seq)
  local at_gen, at_seq = mark(meta_key, gen_field, seq_field)
  if before(at_gen, at_seq, gen, seq) then redis.call('HSET', meta_key, gen_field, gen, seq_field, seq) end
end

-- Whether SQL was asked in a snapshot that cannot have missed what left Redis: `looked_up` names the
-- snapshot's generation and cursor.
local function asked(meta_key, generation, looked_up)
  local of, gen, seq = string.match(looked_up, '^(%d+) (%d+) (-?%d+)$')
  if of ~= generation then return false end
  local evicted_gen, evicted_seq = mark(meta_key, 'eg', 'es')
  return not before(tonumber(gen), tonumber(seq), evicted_gen, evicted_seq)
end
