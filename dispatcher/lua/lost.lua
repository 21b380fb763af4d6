-- Find the jobs of a queue whose message is lost, and count it as published now; the caller publishes it again.
-- ARGV: queue, "1" where the broker's queue is empty, ms after which an untaken message is lost, how many at most
-- Returns their ids.
--
-- Lost means: published that long ago, and since then either the queue was emptied or a message published later was
-- taken, itself that long ago. Waiting in a backlog is not lost; being in a live worker's hands is not either.
local queue, empty, after = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local now = now_ms()
local taken = passed(queue, now, after)
local ids = {}
local old = redis.call('ZRANGEBYSCORE', 'd:o:' .. queue, '-inf', now - after, 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for i = 1, #old, 2 do
  local job = load(old[i])
  if not job then
    zrem('d:o:' .. queue, old[i])
  elseif job.held <= now and (empty or tonumber(old[i + 1]) < taken) then
    zadd('d:o:' .. queue, now, job.id)
    set(job, 'q', '1')
    note(job, now, 'its message was lost and is published again')
    ids[#ids + 1] = job.id
  end
end
return ids
