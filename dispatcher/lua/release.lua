-- Give jobs back that were taken and not claimed, as if they had never been.
-- ARGV: the ids
for i = 1, #ARGV do
  if redis.call('HGET', job_key(ARGV[i]), 's') == 'queued' then redis.call('HDEL', job_key(ARGV[i]), 'k', 'u') end
end
return #ARGV
