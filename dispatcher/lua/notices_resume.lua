-- Tell an endpoint again at once: one that is paused or said that it is gone, and what waits there for its next try.
-- ARGV: endpoint, ms that its teller holds it, how many of what waits
-- Returns 1 where it was paused or gone, and how many of what waits are due now.
local endpoint, hold, most, now = ARGV[1], tonumber(ARGV[2]), ARGV[3], now_ms()
local waits = 'd:tw:' .. endpoint
local was = redis.call('HDEL', known_of(endpoint), 'g', 'p', 'pp')
redis.call('HDEL', known_of(endpoint), 'f', 'fs', 'nb')
-- What is due sooner than a hold may be on its way.
local later = redis.call('ZRANGEBYSCORE', waits, '(' .. int(now + hold), '+inf', 'LIMIT', 0, most)
for _, subject in ipairs(later) do redis.call('ZADD', waits, int(now), subject) end
if redis.call('EXISTS', waits) == 1 then look_at(endpoint, now, now) end
return {was > 0 and 1 or 0, #later}
