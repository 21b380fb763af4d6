-- Let an endpoint go that nobody tells any more, and have it looked at when the next notice is due.
-- ARGV: endpoint, token of who told it
local endpoint, now = ARGV[1], now_ms()
if held(endpoint) ~= ARGV[2] then return 0 end
redis.call('HDEL', known_of(endpoint), 'l', 'ca')
redis.call('ZREM', 'd:te', endpoint)
local next_due = redis.call('ZRANGE', 'd:tw:' .. endpoint, 0, 0, 'WITHSCORES')[2]
if next_due then look_at(endpoint, tonumber(next_due), now) end
return 1
