-- Note how far history goes: what is lost of it one day, is lost from about here.
-- ARGV: the process that claims; ms that one which says nothing any more is remembered
-- Returns how many claims there ever were, and the moment in ms.
local now = now_ms()
redis.call('HSET', 'd:c', 'at', int(now))
redis.call('ZADD', 'd:cw', now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', 'd:cw', '-inf', now - tonumber(ARGV[2]))
return {tonumber(redis.call('HGET', 'd:c', 'n') or 0), now}
