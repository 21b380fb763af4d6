-- Write what became of jobs.
-- ARGV: ms to keep jobs, ms that a receipt is waited for, then for each job: id, guard, state, detail, reason to wait or "",
--       ms to wait, "outcome ref" of the try or "", ms that its code lives from now or "", the hash that its receipt is
--       found by or "", ms until it is asked for or "", n, and n pairs of field and value to set
-- The guard is the token of the claim, or "=<state>" the job must be in.
-- Returns for each job the state it is in now, or "" where it was refused.
--
-- An outcome under an older token changes nothing, but for one thing: news that the provider took it, or answered, still
-- lifts an `unknown`; and that it was taken keeps a job that waits to be tried again from being tried.
local keep, waited = ARGV[1], ARGV[2]
local now = now_ms()
local answer = {}

-- Whether its last claim left it unknown, and not somebody who took it back after that claim's outcome was written.
local function of_claim(job)
  local before
  for state in string.gmatch(job.h, '%d+ (%S+) [^\n]*') do
    if state ~= 'unknown' then before = state end
  end
  return before == 'sending'
end

local function allowed(job, guard, to)
  if string.sub(guard, 1, 1) == '=' then return job.s == string.sub(guard, 2) end
  local good = to == 'sent' or to == 'completed'
  if job.f == guard then
    return job.s == 'sending' or (job.s == 'unknown' and (good or of_claim(job))) or (good and job.s == 'queued')
  end
  return good and (job.s == 'unknown' or job.s == 'queued')
end

-- What a receipt with our own id may have made of a job before the answer to its request is written.
local OVERTAKEN = {sent = true, delivered = true, undelivered = true}

-- Write what the answer tells beside the state; made again because its answer was lost, a call writes it once.
local function complete(job, try, code_ttl, fields)
  local key = job_key(job.id)
  local tries = redis.call('HGET', key, 't') or ''
  if try ~= '' and string.sub(tries, -#try - 1) ~= ' ' .. try then
    redis.call('HSET', key, 't', added(tries, int(now) .. ' ' .. job.p .. ' ' .. try, MOST_TRIES))
    if code_ttl ~= '' then redis.call('HSET', key, 've', int(now + code_ttl)) end
  end
  for f = 1, #fields, 2 do redis.call('HSETNX', key, fields[f], fields[f + 1]) end
end

local i = 3
while i <= #ARGV do
  local id, guard, to, detail, reason, delay, try, code_ttl, receipt, look, pairs_left =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), ARGV[i + 6], ARGV[i + 7],
    ARGV[i + 8], tonumber(ARGV[i + 9]), tonumber(ARGV[i + 10])
  local job, fields = load(id), {}
  for f = i + 11, i + 10 + 2 * pairs_left do fields[#fields + 1] = ARGV[f] end
  i = i + 11 + 2 * pairs_left

  if not job then
    answer[#answer + 1] = ''
  elseif job.f == guard and to == 'sent' and OVERTAKEN[job.s] then
    complete(job, try, code_ttl, fields)
    if job.s == 'sent' and receipt ~= '' then expect(job, receipt, look, waited, now, keep) end
    answer[#answer + 1] = job.s
  elseif job.f == guard and job.s == to then
    -- Made again because its answer was lost.
    answer[#answer + 1] = to
  elseif to == 'queued' and job.s == 'queued' and guard == '=queued' then
    -- Not granted: no attempt was spent, so the history tells it once only.
    if string.sub(job.h, -#detail - 1) ~= ' ' .. detail then note(job, now, detail) end
    park(job, reason, now + delay)
    answer[#answer + 1] = 'queued'
  else
    local may = allowed(job, guard, to)
    if may and guard == '=unknown' and to == 'failed' then
      -- Somebody's word that no try was taken.
      job.i = nil
      redis.call('HDEL', job_key(id), 'i')
    end
    local state = may and move(job, to, now, detail, keep)
    answer[#answer + 1] = state or ''
    if state then
      if try ~= '' then
        local tries = redis.call('HGET', job_key(id), 't')
        redis.call('HSET', job_key(id), 't', added(tries, int(now) .. ' ' .. job.p .. ' ' .. try, MOST_TRIES))
      end
      if code_ttl ~= '' then redis.call('HSET', job_key(id), 've', int(now + code_ttl)) end
      if #fields > 0 then redis.call('HSET', job_key(id), unpack(fields)) end
      if state == 'queued' then
        job.i = job.i or redis.call('HGET', job_key(id), 'i')
        wait_again(job, reason, now + delay, now, keep)
        answer[#answer] = job.s
      elseif state == 'sent' and receipt ~= '' then
        expect(job, receipt, look, waited, now, keep)
        answer[#answer] = job.s
      end
    end
  end
end
return answer
