-- Claim queued jobs just before their request is written: the intent is durable before a byte leaves.
-- ARGV: ms of the lease, ms to keep jobs, ms to keep events, then two per job: id, and whether it may be repeated: never, once, always
-- Returns the fencing token, then for each job 1 where it is ours, else its state.
local lease, kept = tonumber(ARGV[1]), {jobs = ARGV[2], events = ARGV[3]}
local now = now_ms()
local token = redis.call('INCR', 'd:f')
local answer = {token}

for i = 4, #ARGV, 2 do
  local job = load(ARGV[i])
  if not job then
    answer[#answer + 1] = 'gone'
  elseif job.s == 'queued' and job.z and job.z <= now then
    fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', kept)
    answer[#answer + 1] = job.s
  elseif job.s ~= 'queued' then
    answer[#answer + 1] = job.s
  else
    move(job, 'sending', now, 'attempt ' .. (job.a + 1), kept)
    redis.call('HSET', job_key(job.id), 'f', token, 'a', job.a + 1, 'o', ARGV[i + 1])
    redis.call('HDEL', job_key(job.id), 'k')
    redis.call('ZADD', 'd:l', now + lease, job.id)
    answer[#answer + 1] = 1
  end
end
return answer
