-- End the leases of dead workers and the time of what was not sent in time; forget what retention has passed for.
-- ARGV: ms to keep jobs, ms to keep events, how many of each at most
-- Returns how many leases ended and how many jobs expired.
local kept, most = {jobs = ARGV[1], events = ARGV[2]}, ARGV[3]
local now = now_ms()

local ended = redis.call('ZRANGEBYSCORE', 'd:l', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(ended) do
  local job = load(id)
  if job and job.s == 'sending' then
    if job.o == 'always' or (job.o == 'once' and job.a <= 1) then
      move(job, 'queued', now, 'its worker died; asking again is harmless', kept)
      park(job, 'retry', now)
    else
      move(job, 'unknown', now, 'its worker died while the request may have been on the wire', kept)
    end
  end
  redis.call('ZREM', 'd:l', id)
end

local expired = redis.call('ZRANGEBYSCORE', 'd:x', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(expired) do
  local job = load(id)
  if job and job.s == 'queued' then fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', kept) end
  redis.call('ZREM', 'd:x', id)
end

for _, provider in ipairs(redis.call('SMEMBERS', 'd:p')) do
  for state in pairs(SETTLED) do
    redis.call('ZREMRANGEBYSCORE', 'd:i:' .. provider .. ':' .. state, '-inf', '(' .. int(now - kept.jobs))
  end
end
return {#ended, #expired}
