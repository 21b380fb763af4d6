-- Say that a message is in a live worker's hands and waits there: it is not lost.
-- ARGV: the ids
local now = now_ms()
for i = 1, #ARGV do
  local job = load(ARGV[i])
  local outbox = job and job.s == 'queued' and 'd:o:' .. queue_of(job)
  if outbox and redis.call('ZSCORE', outbox, job.id) then
    zadd(outbox, now, job.id)
    -- Its time says nothing any more of how far the queue is.
    set(job, 'q', '1')
  end
end
return #ARGV
