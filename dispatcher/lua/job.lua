-- What every script shares: keys, time, and the one way a job moves. Put before each of them, after the state tables.
--
-- A job is a hash, d:j:<id>:
--   d  its public part, JSON          x  its private part, sealed where there is a key
--   p  provider                       l  "1" in the high lane
--   s  state                          n  lines of history so far
--   h  history: lines of "<ms> <state> <provider> <detail>"
-- and, where there is something to say:
--   z  useless after this ms          w  "<reason> <ms>": what it waits for, and until when
--   b  batch                          a  attempts
--   k  times taken without a claim    u  "<ms> <call>": in the hands of that call of take until then
--   f  fencing token: the call of claim  o  may it be repeated when its worker dies: never, once, always
--   t  tries: lines of "<ms> <provider> <outcome> <ref>"
--   r  result, sealed                 c  price                m  provider's own reference
--   e  failure, JSON                  y  receipt
--   vs, vh, vt, ve  a verification's status, code hash, tries, and the ms it expires at
--   vc "<call> <verdict>" of its last check
--
-- Beside the jobs:
--   d:i:<provider>:<state>  sorted set of ids by the ms they came there        d:p  set of providers with jobs
--   d:o:<queue>   outbox: ids whose message is out, by the ms it was published
--   d:g:<queue>   hash of 10 s slots: the latest publishing time among the messages taken in each
--   d:w:<queue>   ids that wait, by the ms they are due
--   d:l           ids that are sending, by the ms their lease ends             d:x  ids by the ms they expire at
--   d:b:<batch>   hash: jobs by state                                          d:b:<batch>:j  list of its ids
--   d:n:<hash>    list of a number's job ids                                   d:k:<hash>     "<id> <fingerprint>"
--   d:e           the event stream                                             d:f            counts claims
--   d:mode        "sandbox" or "live"                                          d:a            accounts, by workers

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua writes large numbers as 1.7e+12 unless told.
local function int(number)
  return string.format('%.0f', number)
end

-- Whose jobs this Redis holds, "sandbox" or "live": the first to come decides.
local function enter(mode)
  redis.call('SET', 'd:mode', mode, 'NX')
  return redis.call('GET', 'd:mode')
end

local function job_key(id)
  return 'd:j:' .. id
end

local function queue_of(job)
  return job.l and job.p .. '.high' or job.p
end

local function load(id)
  local v = redis.call('HMGET', job_key(id), 's', 'p', 'l', 'n', 'h', 'b', 'f', 'a', 'o', 'z', 'u', 'w')
  if not v[1] then return nil end
  return {
    id = id, s = v[1], p = v[2], l = v[3], n = tonumber(v[4]), h = v[5], b = v[6], f = v[7],
    a = tonumber(v[8] or 0), o = v[9], z = tonumber(v[10]), w = v[12],
    u = tonumber(v[11] and string.match(v[11], '^%d+') or 0), taker = v[11] and string.match(v[11], '%S+$'),
  }
end

-- Add a line to the history; `state` is the job's own unless it is moving.
local function note(job, now, detail)
  job.n = job.n + 1
  local line = int(now) .. ' ' .. job.s .. ' ' .. job.p .. ' ' .. detail
  job.h = job.h == '' and line or job.h .. '\n' .. line
  redis.call('HSET', job_key(job.id), 's', job.s, 'n', job.n, 'h', job.h)
end

local function emit(event, job, now, events_kept)
  redis.call('XADD', 'd:e', 'MINID', '~', int(now - events_kept), '*', 't', event, 'i', job.id, 'n', job.n)
end

-- Take it out of every list of jobs that wait or run; the move that follows puts it where it belongs.
local function unlist(job)
  if job.s == 'queued' then
    redis.call('ZREM', 'd:o:' .. queue_of(job), job.id)
    redis.call('ZREM', 'd:w:' .. queue_of(job), job.id)
    if job.z then redis.call('ZREM', 'd:x', job.id) end
  elseif job.s == 'sending' then
    redis.call('ZREM', 'd:l', job.id)
  end
end

-- Move a job; false where the state table forbids it. `kept` are the ms that settled jobs and events are kept.
local function move(job, to, now, detail, kept)
  if not (MOVES[job.s] and MOVES[job.s][to]) then return false end
  unlist(job)
  redis.call('ZREM', 'd:i:' .. job.p .. ':' .. job.s, job.id)
  redis.call('ZADD', 'd:i:' .. job.p .. ':' .. to, now, job.id)
  if job.b then
    redis.call('HINCRBY', 'd:b:' .. job.b, job.s, -1)
    redis.call('HINCRBY', 'd:b:' .. job.b, to, 1)
  end
  local was = job.s
  job.s = to
  note(job, now, detail)
  redis.call('HDEL', job_key(job.id), 'w', 'u')
  if GOOD[to] then redis.call('HDEL', job_key(job.id), 'e') end
  if SETTLED[to] then
    redis.call('PEXPIRE', job_key(job.id), kept.jobs)
    if job.b then
      redis.call('PEXPIRE', 'd:b:' .. job.b, kept.jobs)
      redis.call('PEXPIRE', 'd:b:' .. job.b .. ':j', kept.jobs)
    end
    emit('job.' .. to, job, now, kept.events)
  elseif SETTLED[was] then
    redis.call('PERSIST', job_key(job.id))
  end
  if to == 'queued' and job.z then redis.call('ZADD', 'd:x', job.z, job.id) end
  return true
end

-- Let a queued job wait until `due`, for `reason`; the clock brings it back.
local function park(job, reason, due)
  redis.call('ZREM', 'd:o:' .. queue_of(job), job.id)
  redis.call('ZADD', 'd:w:' .. queue_of(job), due, job.id)
  redis.call('HSET', job_key(job.id), 'w', reason .. ' ' .. int(due))
  redis.call('HDEL', job_key(job.id), 'u', 'k')
end

-- Settled without the provider: expired, cancelled, or failed before any request.
local function fail(job, to, now, detail, kind, code, kept)
  if not move(job, to, now, detail, kept) then return false end
  redis.call('HSET', job_key(job.id), 'e', cjson.encode({kind = kind, code = code, message = detail}))
  return true
end
