-- Say that a message is in a live worker's hands and waits there: it is not lost.
-- ARGV: the ids
local now = now_ms()
for i = 1, #ARGV do
  local job = load(ARGV[i])
  local outbox = job and job.s == 'queued' and 'd:o:' .. queue_of(job)
  if outbox and redis.call('ZSCORE', outbox, job.id) then
    redis.call('ZADD', outbox, now, job.id)
    -- Its time says nothing any more of how far the queue is.
    redis.call('HSET', job_key(job.id), 'q', '1')
  end
end
return #ARGV
