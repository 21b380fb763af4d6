-- Judge a code against a verification, counting the try before comparing.
-- ARGV: id, keyed hash of the code, tries allowed, ms to keep events
-- Returns {1 where it is right, the verification's status}, or {-1} where there is none, {-2} where the provider judges.
local key, now = job_key(ARGV[1]), now_ms()
local v = redis.call('HMGET', key, 'vs', 'vh', 've', 's', 'n')
local status, hash, expires = v[1], v[2], tonumber(v[3] or 0)
if not status then return {-1} end

local function become(to)
  redis.call('HSET', key, 'vs', to)
  emit('verification.' .. to, {id = ARGV[1], n = v[5]}, now, ARGV[4])
  return to
end

if status == 'pending' and (v[4] == 'failed' or v[4] == 'cancelled') then
  status = become('cancelled')
elseif status == 'pending' and v[4] == 'expired' then
  status = become('expired')
elseif status == 'pending' and expires <= now then
  status = become('expired')
end
if status ~= 'pending' then return {0, status} end
local out = v[4] == 'sent' or v[4] == 'delivered'
if not hash and not out then return {0, status} end

local tries = redis.call('HINCRBY', key, 'vt', 1)
if hash and hash == ARGV[2] then return {1, become('approved')} end
if not hash and tries <= tonumber(ARGV[3]) then return {-2, status} end
if tries >= tonumber(ARGV[3]) then status = become('max_attempts_reached') end
return {0, status}
