-- Begin to trust the history that a server has in this run of it.
-- ARGV: the run, how many claims there ever were
-- Returns 1 where nobody had, else 0.
if redis.call('GET', 'd:er') == ARGV[1] then return 0 end
redis.call('SET', 'd:er', ARGV[1])
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', 'd:c', 'n') or 0) then redis.call('HSET', 'd:c', 'n', ARGV[2]) end
return 1
