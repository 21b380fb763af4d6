-- Write what became of jobs.
-- ARGV: ms to keep jobs, ms to keep events, then for each job: id, guard, state, detail, reason to wait or "", ms to wait,
--       "outcome ref" of the try or "", n, and n pairs of field and value to set
-- The guard is the fencing token of the claim, or "=<state>" the job must be in.
-- Returns for each job the state it is in now, or "" where it was refused.
--
-- An outcome under an older token changes nothing, but for one thing: news that the provider took it, or answered, still
-- lifts an `unknown`, or ends a job that waits to be tried again.
local kept = {jobs = ARGV[1], events = ARGV[2]}
local now = now_ms()
local answer = {}

local function allowed(job, guard, to)
  if string.sub(guard, 1, 1) == '=' then return job.s == string.sub(guard, 2) end
  local good = to == 'sent' or to == 'completed'
  if job.f == guard then return job.s == 'sending' or job.s == 'unknown' or (good and job.s == 'queued') end
  return good and (job.s == 'unknown' or job.s == 'queued')
end

local i = 3
while i <= #ARGV do
  local job, guard, to, detail, reason, delay, try, pairs_left =
    load(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), ARGV[i + 6],
    tonumber(ARGV[i + 7])
  local fields = {}
  for f = i + 8, i + 7 + 2 * pairs_left do fields[#fields + 1] = ARGV[f] end
  i = i + 8 + 2 * pairs_left

  if not job then
    answer[#answer + 1] = ''
  elseif to == 'queued' and job.s == 'queued' and guard == '=queued' then
    -- Not granted: no attempt was spent, so the history tells it once only.
    if not job.w or string.match(job.w, '^%S+') ~= reason then note(job, now, detail) end
    park(job, reason, now + delay)
    answer[#answer + 1] = 'queued'
  elseif allowed(job, guard, to) and move(job, to, now, detail, kept) then
    if to == 'queued' then park(job, reason, now + delay) end
    if try ~= '' then
      local tries = redis.call('HGET', job_key(job.id), 't')
      local line = int(now) .. ' ' .. job.p .. ' ' .. try
      redis.call('HSET', job_key(job.id), 't', tries and tries .. '\n' .. line or line)
    end
    for f = 1, #fields, 2 do
      -- A code lives from the moment it was sent, so its life is given in ms and kept as a moment.
      local value = fields[f] == 've' and int(now + fields[f + 1]) or fields[f + 1]
      redis.call('HSET', job_key(job.id), fields[f], value)
    end
    answer[#answer + 1] = job.s
  else
    answer[#answer + 1] = ''
  end
end
return answer
