-- Remember what a lookup found, unless something newer is.
-- ARGV: ms that it is remembered, the hash of the number, account, ms it was asked at, the job that asked, the sealed result
-- Returns 1 where it is remembered, else 0.
local key, account, at, now = 'd:lk:' .. ARGV[2], ARGV[3], tonumber(ARGV[4]), now_ms()
local known = redis.call('HGET', key, account)
local left = at + tonumber(ARGV[1]) - now
if left <= 0 or (known and tonumber(string.match(known, '^%d+')) > at) then return 0 end
redis.call('HSET', key, account, int(at) .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
if redis.call('PTTL', key) < left then redis.call('PEXPIRE', key, int(left)) end
return 1
