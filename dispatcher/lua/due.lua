-- Take the jobs of a queue that are due into its outbox; the caller publishes them.
-- ARGV: queue, how many at most
-- Returns their ids.
local queue, now = ARGV[1], now_ms()
local due = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:w:' .. queue, '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', 'd:w:' .. queue, id)
  if redis.call('HGET', job_key(id), 's') == 'queued' then
    redis.call('ZADD', 'd:o:' .. queue, now, id)
    redis.call('HDEL', job_key(id), 'w')
    due[#due + 1] = id
  end
end
return due
