-- End what `repeats_begin` began.
-- ARGV: name of that call, keyed hash of tenant and key, "done", "again" or "never", ms to remember, the name of
--   what was made
-- Returns 1; 0 where another call has it by now, or this one said so before.
--
-- After "again" the same request may be made at once, after "never" any: nothing came of this one.
local call, key, how = ARGV[1], 'd:ai:' .. ARGV[2], ARGV[3]
if redis.call('HGET', key, 'c') ~= call then return 0 end
if how == 'never' then
  redis.call('DEL', key)
  return 1
end
redis.call('HDEL', key, 'c', 'u')
if how == 'done' then redis.call('HSET', key, 'r', '1', 'n', ARGV[5]) end
redis.call('PEXPIRE', key, ARGV[4])
return 1
