-- Claim taken jobs just before their request is written: the intent is durable before a byte leaves.
-- ARGV: the taker's token, which fences what follows; ms of the lease, ms to keep jobs; then two per job: id, and whether
--       it may be repeated: never, once, always
-- Returns for each job 1 where it is ours, else its state. Made again because its answer was lost, a call finds its own.
local token, lease, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = now_ms()
local answer = {}

for i = 4, #ARGV, 2 do
  local job = load(ARGV[i])
  if not job then
    answer[#answer + 1] = 'gone'
  elseif job.s == 'sending' and job.f == token then
    answer[#answer + 1] = 1
  elseif job.s ~= 'queued' or job.taker ~= token then
    answer[#answer + 1] = job.s
  elseif job.z and job.z <= now then
    fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', keep)
    answer[#answer + 1] = job.s
  else
    move(job, 'sending', now, 'attempt ' .. (job.a + 1), keep)
    redis.call('HSET', job_key(job.id), 'f', token, 'a', job.a + 1, 'o', ARGV[i + 1])
    redis.call('HDEL', job_key(job.id), 'k', 'q')
    redis.call('ZADD', 'd:l', now + lease, job.id)
    answer[#answer + 1] = 1
  end
end
return answer
