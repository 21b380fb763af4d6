-- Keep what a provider told us until it is read.
-- ARGV: id, account, the request, sealed
-- Returns the ms it came at. Made again because its answer was lost, a call changes nothing.
local id, account, now = ARGV[1], ARGV[2], now_ms()
local known = redis.call('HGET', 'd:cb:' .. id, 't')
if known then return known end
redis.call('HSET', 'd:cb:' .. id, 'a', account, 't', int(now), 'x', ARGV[3])
redis.call('ZADD', 'd:co:' .. account, now, id)
redis.call('SADD', 'd:ca', account)
return int(now)
