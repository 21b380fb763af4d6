-- Let codes go to a closed prefix again; counting begins anew.
-- ARGV: the hash of the prefix
-- Returns 1 where it was closed.
redis.call('DEL', 'd:vx:c:' .. ARGV[1], 'd:vc:' .. ARGV[1])
return redis.call('ZREM', 'd:vx', ARGV[1])
