-- Create jobs and their outbox entries, all or none.
-- ARGV: what is asked for, as JSON; private parts and card details of its jobs, one after the other. Asked for are
--   mode, hash_key (what tells one from another, or ""), provider, high (the lane), batch (or ""), more (of it follows),
--   callback (the batch's, if there is any),
--   keep and keep_keys (ms that jobs and idempotency keys are kept),
--   alike: what some of the jobs have in common: public, tenant, texts (that number), and if there is any due (ms since
--     1970), valid_for, code_ttl (ms), scopes (hashes of tenant, sender and both, which the list may have beside numbers),
--   jobs: id, as (which of those), private (bytes), and if there is any number, idempotency, fingerprint (hashes), card
--     (bytes), redrives (a job) and was (the state that it was in), more (further fields of its record),
--     held (ms since 1970 until which it waits for the end of quiet hours) and why (its words)
-- Returns {"MODE", other}, {"KEY"}, {"CANCELLED"} where the batch was, {"CONFLICT", position, id}, or {"OK", now in ms,
--       and lists: for each job that has another id than its own the position and that id, of the job made before by the
--       same idempotency key or of the same job, or "" where the job to be redriven is in another state by now; ids of
--       those that ended at once, since the person wants no more texts, nobody is texted in that country, or it is quiet
--       there until they are useless; ids of those that the caller publishes}.
-- Creating an id that is there already changes nothing: a producer may repeat a call whose answer was lost.
local asked, parts = cjson.decode(ARGV[1]), ARGV[2]
local provider, batch, keep, jobs = asked.provider, asked.batch, asked.keep, asked.jobs
local queue = asked.high and provider .. '.high' or provider
local refused = stranger(asked.mode, asked.hash_key)
if refused then return refused end
if batch ~= '' and redis.call('HEXISTS', batch_key(batch), 'c') == 1 then return {'CANCELLED'} end
local time = redis.call('TIME')
local exact = time[1] * 1000 + time[2] / 1000
local now = math.floor(exact)
-- Ms from one job of a line to the next, less than making one takes: a later call's jobs come behind them.
local BETWEEN = 0.0005

-- By idempotency key the job that was made by it. A key whose job is forgotten is free again.
local function made_before()
  local keyed, keys, made = {}, {}, {}
  for _, job in ipairs(jobs) do
    if job.idempotency then
      keyed[#keyed + 1] = job.idempotency
      keys[#keys + 1] = 'd:k:' .. job.idempotency
    end
  end
  if #keys == 0 then return made end
  for i, known in ipairs(redis.call('MGET', unpack(keys))) do
    if known then
      local id, fingerprint = string.match(known, '^(%S+) (%S+)$')
      if redis.call('EXISTS', job_key(id)) == 1 then made[keyed[i]] = {id = id, fingerprint = fingerprint} end
    end
  end
  return made
end

-- The ids that are there already.
local function there_already()
  local keys, known = {}, {}
  for i, job in ipairs(jobs) do keys[i] = job_key(job.id) end
  if redis.call('EXISTS', unpack(keys)) == 0 then return known end
  for i, job in ipairs(jobs) do known[job.id] = redis.call('EXISTS', keys[i]) == 1 end
  return known
end

-- Look first, so that a conflict leaves nothing behind.
local changed, made = {}, made_before()
for i, job in ipairs(jobs) do
  local becomes = job.id
  if job.idempotency then
    local first = made[job.idempotency] or job
    if first.fingerprint ~= job.fingerprint then return {'CONFLICT', i - 1, first.id} end
    made[job.idempotency], becomes = first, first.id
  end
  if job.redrives then
    local old = load(job.redrives)
    local may = old and old.s == job.was and not old.v.fg and not old.v.vn and old.v.vs ~= 'approved'
    becomes = old and old.v.rd or may and job.id or ''
  end
  job.own = becomes == job.id
  if not job.own then
    changed[#changed + 1] = i - 1
    changed[#changed + 1] = becomes
  end
end

-- A verification is held against its guards, which guards.lua has; an ordinary job has none.
local held = ARGV[3] and refused_by_guard(jobs[1], now, keep)
if held then return held end

-- Of the texts, those to somebody who wants none or in a country that nobody is texted in.
local refused_by, is_refused, country_of = {}, {}, {}
local function refuse(job)
  refused_by[#refused_by + 1] = job.id
  is_refused[job.id] = true
end
local function refuse_countries()
  for _, like in ipairs(asked.alike) do
    like.country = like.texts and cjson.decode(like.public).country
    like.shut = like.country and redis.call('HEXISTS', 'd:kc', like.country) == 1
  end
  for _, job in ipairs(jobs) do
    local like = asked.alike[job.as]
    country_of[job.id] = like.country
    if job.own and like.shut then refuse(job) end
  end
end
local function refuse_opted_out()
  local texts = {}
  for _, job in ipairs(jobs) do
    local like = asked.alike[job.as]
    if job.own and job.number and like.texts and not is_refused[job.id] and not (job.more and job.more.ps) then
      texts[#texts + 1] = {number = job.number, scopes = like.scopes, job = job}
    end
  end
  ask_list(texts)
  for _, text in ipairs(texts) do
    if text.alone then refuse(text.job) end
  end
end
if redis.call('EXISTS', 'd:kc', 'd:no') > 0 then
  refuse_countries()
  refuse_opted_out()
end

local made_now = int(now) .. ' queued ' .. provider .. ' created'

-- Have the stream moved on from here, now that somebody is to be told.
local told = false
local function begin_telling()
  if told then return end
  told = true
  if redis.call('EXISTS', 'd:tc') == 1 then return end
  local last = redis.call('XREVRANGE', 'd:e', '+', '-', 'COUNT', 1)[1]
  redis.call('SET', 'd:tc', last and last[1] or '0-0')
end

-- The day by whose end a job that begins then is over for as long as it is kept, as text, and the ms it ends at: a week
-- from now at least, since it may wait for its turn, and for nights, before it is.
local function last_day(like, begins)
  local over = math.max(begins, like.begins + (like.valid_for or 0))
  local day = math.floor((over + math.max(keep, 7 * DAY)) / DAY)
  return date_text(day), (day + 1) * DAY
end

-- Fill in what jobs that are alike have in common: when they begin and are useless, and the fields of their records.
local function prepare(like)
  local begins = math.max(like.due or 0, now)
  like.begins = begins
  like.expires = like.valid_for and begins + like.valid_for
  -- What lists a job by its number counts from when it can be over: it may wait long before its retention begins.
  like.day, like.day_ends = last_day(like, begins)
  local fields = {'d', like.public, 'p', provider, 's', 'queued', 'n', '1'}
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if asked.high then add('l', '1') end
  if batch ~= '' then add('b', batch) end
  if like.tenant ~= '' then add('tn', like.tenant) end
  if like.code_ttl then
    add('vs', 'pending')
    add('ve', int(begins + like.code_ttl))
  end
  if begins > now then add('w', 'time ' .. int(begins)) end
  if like.expires then add('z', int(like.expires)) end
  add('h', made_now)
  like.fields = fields
  like.common = #fields
end
for _, like in ipairs(asked.alike) do prepare(like) end

local known, at_once, at = there_already(), room_at_once(queue), 1
local fresh, out, keys, days, too_late = {}, {}, {}, {}, {}

-- Take the next of the private parts.
local function part(size)
  at = at + size
  return string.sub(parts, at - size, at - 1)
end

-- Write a job's record: what it has in common with others, and behind that what is its own.
local function write(job, like, private, card)
  local fields, last = like.fields, like.common
  local function add(name, value)
    fields[last + 1], fields[last + 2] = name, value
    last = last + 2
  end
  add('x', private)
  for name, value in pairs(job.more or {}) do
    add(name, value)
    if name == 'cb' then begin_telling() end
  end
  if job.held and job.held > now then
    add('w', 'quiet_hours ' .. int(job.held))
    add('qh', int(job.held))
    add('h', made_now .. '; ' .. job.why)
  end
  if job.redrives then add('h', made_now .. ', to redrive ' .. job.redrives .. ', which was ' .. job.was) end
  if card ~= '' then
    add('xc', card)
    -- Erased as it settles; looked at as well, since a worker of the release before knows nothing of cards.
    zadd('d:v', now, job.id)
  end
  if job.idempotency then
    -- Kept while the job is busy, however long that is; its lifetime begins when the job settles.
    -- Of a job that is kept for less than others, no longer than the job.
    local kept = tonumber(job.more and job.more.kp) or asked.keep_keys
    add('ik', int(math.min(asked.keep_keys, kept)) .. ' ' .. job.idempotency)
    keys[#keys + 1] = 'd:k:' .. job.idempotency
    keys[#keys + 1] = job.id .. ' ' .. job.fingerprint
  end
  redis.call('HSET', job_key(job.id), unpack(fields, 1, last))
end

local function list(job, like)
  local due = math.max(like.begins, job.held or 0)
  if due > now then
    zadd('d:w:' .. queue, due, job.id)
  elseif at_once > 0 then
    zadd('d:o:' .. queue, now, job.id)
    if not is_refused[job.id] then out[#out + 1] = job.id end
    at_once = at_once - 1
  else
    -- In the order given: one call makes all of its jobs at the same moment. Never at whole ms: what came back is there.
    line_up(queue, job.id, batch, like.tenant, exact + (#fresh + 0.5) * BETWEEN)
  end
  if like.expires then zadd('d:x', like.expires, job.id) end
  zadd('d:i:' .. provider .. ':queued', now, job.id)
  if job.number then
    local day, ends = like.day, like.day_ends
    if due > like.begins then day, ends = last_day(like, due) end
    zadd('d:n:' .. day, 0, job.number .. ' ' .. job.id)
    days[day] = ends
  end
end

for _, job in ipairs(jobs) do
  local like, private, card = asked.alike[job.as], part(job.private), part(job.card or 0)
  if job.own and job.held and like.expires and like.expires <= job.held then too_late[#too_late + 1] = job end
  if job.own and not known[job.id] then
    known[job.id] = true
    fresh[#fresh + 1] = job.id
    write(job, like, private, card)
    list(job, like)
    if job.redrives then
      local old = load(job.redrives)
      set(old, 'rd', job.id)
      note(old, now, 'redriven as ' .. job.id)
    end
  elseif job.own and not is_refused[job.id] and redis.call('ZSCORE', 'd:o:' .. queue, job.id) then
    -- Nobody published it, should the answer have been lost.
    out[#out + 1] = job.id
  end
end

redis.call('SADD', 'd:p', provider)
if #keys > 0 then redis.call('MSET', unpack(keys)) end
write_sets()
for day, ends in pairs(days) do
  if redis.call('ZADD', 'd:nd', ends, day) == 1 then redis.call('PEXPIREAT', 'd:n:' .. day, int(ends)) end
end
if batch ~= '' then
  if #fresh > 0 and asked.callback then
    begin_telling()
    redis.call('HSET', batch_key(batch), 'cb', asked.callback)
  end
  if #fresh > 0 then
    redis.call('RPUSH', batch_key(batch) .. ':j', unpack(fresh))
    count_in(batch, 'queued', #fresh)
  end
  local altered = asked.more and redis.call('HSET', batch_key(batch), 'o', '1') or redis.call('HDEL', batch_key(batch), 'o')
  if #fresh > 0 or altered > 0 then look_after(batch, keep) end
end
-- Once its batch counts them: then it settles with the last of them, and not before.
for _, id in ipairs(refused_by) do
  local job = load(id)
  -- Made again because its answer was lost, a call may find one that is on the wire by now.
  if job.s == 'queued' and not shut_out(job, country_of[id] or '', now, keep) then leave_alone(job, now, keep) end
end
for _, one in ipairs(too_late) do
  local job = load(one.id)
  if job.s == 'queued' then expire_quiet(job, now, one.why, keep) end
  if not is_refused[one.id] then refused_by[#refused_by + 1] = one.id end
end
return {'OK', int(now), changed, refused_by, out}
