-- Begin what an Idempotency-Key of the HTTP API names, unless it was done, or is under way.
-- ARGV: name of this call, keyed hash of tenant and key, keyed hash of the request, ms that it may take, ms to remember,
--   what is made under it unless it has a name already
-- Returns {word, name, ms}: "new"; "done"; "busy", with how long that may take; or "other", another request's key.
--
-- d:ai:<hash> is a hash: f the request; n the name of what is made; while it is under way c the call that does it and u
-- until when (ms); r that it was done. What does not end within its time may be taken over: whoever did it died.
local call, key, request, now = ARGV[1], 'd:ai:' .. ARGV[2], ARGV[3], now_ms()
local known, name, by, at, done = unpack(redis.call('HMGET', key, 'f', 'n', 'c', 'u', 'r'))
if known and known ~= request then return {'other', '', 0} end
if done then return {'done', name, 0} end
if by and by ~= call and tonumber(at) > now then return {'busy', name, at - now} end
name = name or ARGV[6]
redis.call('HSET', key, 'f', request, 'n', name, 'c', call, 'u', int(now + ARGV[4]))
redis.call('PEXPIRE', key, ARGV[5])
return {'new', name, 0}
