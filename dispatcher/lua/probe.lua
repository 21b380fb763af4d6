-- Claim the look at a suspension whose time has come, so that one worker of all makes it; or put the next one off.
-- ARGV: account, scope, ms until the one after, "1" though its time has not come, what the account has left or ""
-- Returns 1 where it is the caller's.
local key, scope, now = 'd:s:' .. ARGV[1], ARGV[2], now_ms()
local known = redis.call('HGET', key, scope)
if not known then return 0 end
local record = cjson.decode(known)
if tonumber(record.next) > now and ARGV[4] ~= '1' then return 0 end
record.next = int(now + tonumber(ARGV[3]))
if ARGV[5] ~= '' then record.left = ARGV[5] end
redis.call('HSET', key, scope, cjson.encode(record))
return 1
