-- Take the jobs of a queue that are due into its outbox; the caller publishes them.
-- ARGV: queue, how many at most
-- Returns their ids.
local queue, now = ARGV[1], now_ms()
local ids = redis.call('ZRANGEBYSCORE', 'd:w:' .. queue, '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  redis.call('ZREM', 'd:w:' .. queue, id)
  redis.call('ZADD', 'd:o:' .. queue, now, id)
  redis.call('HSET', job_key(id), 'w', 'worker 0')
end
return ids
