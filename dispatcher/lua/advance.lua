-- Write what became of jobs.
-- ARGV: ms to keep jobs, ms that a receipt is waited for, then for each job: id, guard, state, detail, reason to wait or "",
--       ms to wait, "1" where it waits in its line, "outcome ref" of the try or "", ms that its code lives from now or "",
--       the hash that its receipt is found by or "", ms until it is asked for or "", the account that this is told of or
--       "" for the one that has it, the account that it goes on to or "", ms after which it goes on from there without
--       a receipt or 0, n, and n pairs of field and value to set
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

-- Add a try to those that are told of.
local function tried(job, account, try)
  local tries = redis.call('HGET', job_key(job.id), 't')
  redis.call('HSET', job_key(job.id), 't', added(tries, int(now) .. ' ' .. account .. ' ' .. try, MOST_TRIES))
end

-- Write what the answer tells beside the state; made again because its answer was lost, a call writes it once.
local function complete(job, account, try, code_ttl, fields)
  local key = job_key(job.id)
  local tries = redis.call('HGET', key, 't') or ''
  if try ~= '' and string.sub(tries, -#try - 1) ~= ' ' .. try then
    tried(job, account, try)
    if code_ttl ~= '' then redis.call('HSET', key, 've', int(now + code_ttl)) end
  end
  -- Of a job that moved the hash of a code may be that of the account before.
  for f = 1, #fields, 2 do redis.call(fields[f] == 'vh' and 'HSET' or 'HSETNX', key, fields[f], fields[f + 1]) end
  count_price(job, fields, now)
end

local i = 3
while i <= #ARGV do
  local id, guard, to, detail, reason, delay, lined, try, code_ttl, receipt, look, account, goal, watched, pairs_left =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), ARGV[i + 6] == '1', ARGV[i + 7],
    ARGV[i + 8], ARGV[i + 9], tonumber(ARGV[i + 10]), ARGV[i + 11], ARGV[i + 12], tonumber(ARGV[i + 13]),
    tonumber(ARGV[i + 14])
  local job, fields = load(id), {}
  for f = i + 15, i + 14 + 2 * pairs_left do fields[#fields + 1] = ARGV[f] end
  i = i + 15 + 2 * pairs_left
  if job and account == '' then account = job.p end
  local next, position
  if job and goal ~= '' then next, position = following(job) end

  if not job then
    answer[#answer + 1] = ''
  elseif GOOD[to] and taken_by(job, account) then
    -- Told already, and it moved on since: no news, but for those that find it by its reference from now on.
    if not string.find(redis.call('HGET', job_key(id), 't') or '', ' ' .. account .. ' accepted ', 1, true) then
      tried(job, account, try)
    end
    if receipt ~= '' then expect(job, receipt, look, waited, now, keep, account) end
    answer[#answer + 1] = job.s
  elseif job.f == guard and to == 'sent' and OVERTAKEN[job.s] then
    complete(job, account, try, code_ttl, fields)
    if job.s == 'sent' then watch(job, watched, now, keep) end
    if job.s == 'sent' and receipt ~= '' then expect(job, receipt, look, waited, now, keep, account) end
    answer[#answer + 1] = job.s
  elseif job.f == guard and job.s == to then
    -- Made again because its answer was lost.
    answer[#answer + 1] = to
  elseif to == 'queued' and job.s == 'queued' and guard == '=queued' then
    -- Not granted: no attempt was spent, so the history tells it once only. Made again, a call finds that it moved on.
    if goal == '' or next == goal then
      if string.sub(job.h, -#detail - 1) ~= ' ' .. detail then note(job, now, detail) end
      if next then go_on(job, next, position, now) end
      park(job, reason, now + delay, lined)
    end
    answer[#answer + 1] = 'queued'
  else
    local may = allowed(job, guard, to)
    if may and guard == '=unknown' and to == 'failed' and job.i == '1' then
      -- Somebody's word that no try was taken; of one at another account it is known.
      job.i = nil
      redis.call('HDEL', job_key(id), 'i')
    end
    -- It was taken by an account that it had left meanwhile, and comes back.
    if may and GOOD[to] and MOVES[job.s] and MOVES[job.s][to] then hand_over(job, account, now) end
    -- Before it moves: its batch shall not be told to have settled.
    if may and to == 'sent' and MOVES[job.s] and MOVES[job.s].sent then
      redis.call('HDEL', job_key(id), 'w')
      watch(job, watched, now, keep)
    end
    job.told = fields
    local state = may and move(job, to, now, detail, keep)
    answer[#answer + 1] = state or ''
    if state then
      if try ~= '' then tried(job, account, try) end
      if code_ttl ~= '' then redis.call('HSET', job_key(id), 've', int(now + code_ttl)) end
      if #fields > 0 then redis.call('HSET', job_key(id), unpack(fields)) end
      -- That a later try may have been taken is less than that one was.
      if job.i and job.i ~= '1' then redis.call('HSET', job_key(id), 'i', job.i) end
      if GOOD[state] and not GOOD[to] then redis.call('HDEL', job_key(id), 'e') end
      count_price(job, fields, now)
      if state == 'queued' then
        job.i = job.i or redis.call('HGET', job_key(id), 'i')
        if next and next == goal then go_on(job, next, position, now) end
        wait_again(job, reason, now + delay, now, keep)
        answer[#answer] = job.s
      elseif state == 'sent' then
        if receipt ~= '' then expect(job, receipt, look, waited, now, keep, account) end
        answer[#answer] = job.s
      end
    end
  end
end
return answer
