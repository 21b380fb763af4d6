-- Write the status that a provider gave a verification it checks itself; a status other than pending stays.
-- ARGV: id, status
-- Returns 1 where it changed.
local v = redis.call('HMGET', job_key(ARGV[1]), 'vs', 'n')
if v[1] ~= 'pending' or ARGV[2] == 'pending' then return 0 end
redis.call('HSET', job_key(ARGV[1]), 'vs', ARGV[2])
emit('verification.' .. ARGV[2], ARGV[1], v[2])
return 1
