-- Create jobs and their outbox entries, all or none.
-- ARGV: mode, what tells one hash key from another or "", provider, lane ("1" or ""), batch or "", "1" where more of
--       the batch follow or "", ms to keep jobs, ms to keep idempotency keys; then fourteen per job: id, public part,
--       private part, due ms or "", ms it is valid for or "", number hash or "", idempotency hash or "", fingerprint,
--       ms its code lives for or "", card details sealed or "", "1" where it texts that number, the job that it redrives
--       and the state that was in, or "" and ""; its tenant
-- Returns {"MODE", other}, {"KEY"}, {"CANCELLED"} where the batch was, {"CONFLICT", position, id}, or {"OK", now in ms,
--       then for each job the id it has: its own, or that of the job made before by the same idempotency key or of the
--       same job, or "" where the job to be redriven is in another state by now; and last two lists of ids: of those
--       that failed at once, since the person wants no more texts or nobody is texted in that country, and of those that
--       the caller publishes}.
-- Creating an id that is there already changes nothing: a producer may repeat a call whose answer was lost.
local FIRST, EACH = 9, 14
local provider, lane, batch, more = ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'
local keep, keep_idem = tonumber(ARGV[7]), tonumber(ARGV[8])
local refused = stranger(ARGV[1], ARGV[2])
if refused then return refused end
if batch ~= '' and redis.call('HEXISTS', batch_key(batch), 'c') == 1 then return {'CANCELLED'} end

-- A key whose job is forgotten is free again.
local function made_by(idem)
  local known = redis.call('GET', 'd:k:' .. idem)
  if not known then return end
  local id, fingerprint = string.match(known, '^(%S+) (%S+)$')
  if redis.call('EXISTS', job_key(id)) == 1 then return id, fingerprint end
end

-- Look first, so that a conflict leaves nothing behind.
local now = now_ms()
local answer, earlier = {'OK', int(now)}, {}
for i = FIRST, #ARGV, EACH do
  local id, idem, fingerprint = ARGV[i], ARGV[i + 6], ARGV[i + 7]
  answer[#answer + 1] = id
  if idem ~= '' then
    local first, other = made_by(idem)
    if not first and earlier[idem] then first, other = earlier[idem].id, earlier[idem].fingerprint end
    if first and other ~= fingerprint then return {'CONFLICT', (i - FIRST) / EACH, first} end
    answer[#answer] = first or id
    earlier[idem] = earlier[idem] or {id = id, fingerprint = fingerprint}
  end
  if ARGV[i + 11] ~= '' then
    local old = redis.call('HMGET', job_key(ARGV[i + 11]), 's', 'rd')
    answer[#answer] = old[2] or (old[1] == ARGV[i + 12] and id) or ''
  end
end

local queue = lane == '1' and provider .. '.high' or provider
redis.call('SADD', 'd:p', provider)
local created, refused_by, is_refused, out = 0, {}, {}, {}
local shut, country_of = redis.call('EXISTS', 'd:kc') == 1, {}
local at_once = room_at_once(queue)
for i = FIRST, #ARGV, EACH do
  local id, due, valid, number, idem, code_ttl =
    ARGV[i], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 8])
  local tenant = ARGV[i + 13]
  local own = answer[3 + (i - FIRST) / EACH] == id
  if own and shut and ARGV[i + 10] == '1' then country_of[id] = cjson.decode(ARGV[i + 1]).country end
  local listed = own and ARGV[i + 10] == '1' and number ~= '' and redis.call('HEXISTS', 'd:no', number) == 1
  if listed or (country_of[id] and redis.call('HEXISTS', 'd:kc', country_of[id]) == 1) then
    refused_by[#refused_by + 1] = id
    is_refused[id] = true
  end
  if own and redis.call('EXISTS', job_key(id)) == 0 then
    local begins = math.max(due or 0, now)
    -- What lists a job counts from when it can be over: it may wait long before its retention begins.
    local found = int(begins - now + (valid or 0) + keep)
    local fields = {'d', ARGV[i + 1], 'x', ARGV[i + 2], 'p', provider, 's', 'queued', 'n', 1}
    local function add(name, value)
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
    local redriven = ARGV[i + 11] ~= '' and ', to redrive ' .. ARGV[i + 11] .. ', which was ' .. ARGV[i + 12] or ''
    add('h', int(now) .. ' queued ' .. provider .. ' created' .. redriven)
    if lane == '1' then add('l', '1') end
    if ARGV[i + 9] ~= '' then
      add('xc', ARGV[i + 9])
      -- Erased as it settles; looked at as well, since a worker of the release before knows nothing of cards.
      redis.call('ZADD', 'd:v', now, id)
    end
    if batch ~= '' then add('b', batch) end
    if tenant ~= '' then add('tn', tenant) end
    if idem ~= '' then
      -- Kept while the job is busy, however long that is; its lifetime begins when the job settles.
      add('ik', int(keep_idem) .. ' ' .. idem)
      redis.call('SET', 'd:k:' .. idem, id .. ' ' .. ARGV[i + 7])
    end
    if code_ttl then
      add('vs', 'pending')
      add('ve', int(begins + code_ttl))
    end
    if begins > now then
      add('w', 'time ' .. int(begins))
      redis.call('ZADD', 'd:w:' .. queue, begins, id)
    elseif at_once > 0 then
      redis.call('ZADD', 'd:o:' .. queue, now, id)
      if not is_refused[id] then out[#out + 1] = id end
      at_once = at_once - 1
    else
      -- In the order given: one call makes all of its jobs in the same millisecond.
      line_up(queue, id, batch, tenant, now + i / 10000)
    end
    if valid then
      add('z', int(begins + valid))
      redis.call('ZADD', 'd:x', begins + valid, id)
    end
    redis.call('HSET', job_key(id), unpack(fields))
    redis.call('ZADD', 'd:i:' .. provider .. ':queued', now, id)
    if batch ~= '' then redis.call('RPUSH', batch_key(batch) .. ':j', id) end
    if number ~= '' then
      redis.call('RPUSH', 'd:n:' .. number, id)
      redis.call('LTRIM', 'd:n:' .. number, -1000, -1)
      if redis.call('PTTL', 'd:n:' .. number) < tonumber(found) then redis.call('PEXPIRE', 'd:n:' .. number, found) end
    end
    created = created + 1
    if redriven ~= '' then
      redis.call('HSET', job_key(ARGV[i + 11]), 'rd', id)
      note(load(ARGV[i + 11]), now, 'redriven as ' .. id)
    end
  elseif own and redis.call('ZSCORE', 'd:o:' .. queue, id) then
    -- Nobody published it, should the answer have been lost.
    out[#out + 1] = id
  end
end
if batch ~= '' then
  if created > 0 then redis.call('HINCRBY', batch_key(batch), 'queued', created) end
  local changed = more and redis.call('HSET', batch_key(batch), 'o', '1') or redis.call('HDEL', batch_key(batch), 'o')
  if created > 0 or changed > 0 then look_after(batch, keep) end
end
-- Once its batch counts them: then it settles with the last of them, and not before.
for _, id in ipairs(refused_by) do
  local job = load(id)
  -- Made again because its answer was lost, a call may find one that is on the wire by now.
  if job.s == 'queued' and not shut_out(job, country_of[id] or '', now, keep) then leave_alone(job, now, keep) end
end
answer[#answer + 1] = refused_by
answer[#answer + 1] = out
return answer
