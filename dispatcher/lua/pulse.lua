-- Note how far history goes: what is lost of it one day, is lost from about here.
-- Returns how many claims there ever were, and the moment in ms.
local now = now_ms()
redis.call('HSET', 'd:c', 'at', int(now))
return {tonumber(redis.call('HGET', 'd:c', 'n') or 0), now}
