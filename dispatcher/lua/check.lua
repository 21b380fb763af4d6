-- Judge a code against a verification, counting the try before comparing.
-- ARGV: name of this call, id, keyed hash of the code, tries allowed
-- Returns {1 where it is right, else 0; the verification's status}, {-1} where there is none, {-2, status} where the
-- provider judges.
local call, id, key, now = ARGV[1], ARGV[2], job_key(ARGV[2]), now_ms()
local v = redis.call('HMGET', key, 'vs', 'vh', 've', 's', 'n', 'vc')
local status, hash, expires, state = v[1], v[2], tonumber(v[3] or 0), v[4]
if not status then return {-1} end
-- Of a job that moved on to an account which makes or judges the code itself.
if hash == '' then hash = nil end

local function become(to)
  redis.call('HSET', key, 'vs', to)
  redis.call('HDEL', key, 'vx')
  emit('verification.' .. to, id, v[5])
  return to
end

local waits = state == 'queued' or state == 'sending'
if status == 'pending' and (state == 'failed' or state == 'cancelled') then
  status = become('cancelled')
elseif status == 'pending' and (state == 'expired' or (expires <= now and not waits)) then
  -- A code that is still to be sent has all its life before it.
  status = become('expired')
end
if v[6] and string.match(v[6], '^%S+') == call then return {tonumber(string.match(v[6], '%S+$')), status} end
if status ~= 'pending' then return {0, status} end
local out = state == 'sent' or state == 'delivered'
if not hash and not out then return {0, status} end

local tries, allowed = redis.call('HINCRBY', key, 'vt', 1), tonumber(ARGV[4])
local verdict = 0
if hash and hash == ARGV[3] then
  verdict, status = 1, become('approved')
elseif not hash and tries <= allowed then
  verdict = -2
elseif tries >= allowed then
  status = become('max_attempts_reached')
end
-- Made again because its answer was lost, a call gets the same verdict and costs no second try.
redis.call('HSET', key, 'vc', call .. ' ' .. verdict)
return {verdict, status}
