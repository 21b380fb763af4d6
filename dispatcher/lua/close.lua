-- Say that no more jobs of a batch follow, or that none may.
-- ARGV: batch, "cancelled" where none may or "", ms to keep jobs
-- Returns how many jobs it has, or -1 where there is no such batch.
local batch, key = ARGV[1], batch_key(ARGV[1])
if redis.call('EXISTS', key) == 0 then return -1 end
local changed = redis.call('HDEL', key, 'o')
if ARGV[2] == 'cancelled' then changed = changed + redis.call('HSET', key, 'c', '1') end
if changed > 0 then look_after(batch, ARGV[3]) end
return redis.call('LLEN', key .. ':j')
