-- End the leases of dead workers and the time of what was not sent in time; forget what retention has passed for.
-- ARGV: ms to keep jobs, ms to keep events, ms after which an untaken message is lost, how many of each at most, ms to keep
--       what was used of a day
-- Returns how many leases ended and how many jobs expired.
local keep, events_kept, lost_after, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local now = now_ms()
local RESENT = 'it may have been taken, and is sent again as the caller asked'

local ended = redis.call('ZRANGEBYSCORE', 'd:l', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(ended) do
  local job = load(id)
  if job and job.s == 'sending' then
    local harmless = job.o == 'always' or (job.o == 'once' and job.a <= 1)
    if harmless or (job.o == 'resend' and not job.i) then
      local why = harmless and 'asking again is harmless' or RESENT
      move(job, 'queued', now, 'its worker died; ' .. why, keep)
      redis.call('HSET', job_key(id), 'i', '1')
      job.i = '1'
      wait_again(job, 'retry', now, now, keep)
    else
      move(job, 'unknown', now, 'its worker died while the request may have been on the wire', keep)
    end
  end
  redis.call('ZREM', 'd:l', id)
end

local expired = redis.call('ZRANGEBYSCORE', 'd:x', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(expired) do
  local job = load(id)
  if job and job.s == 'queued' then fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', keep) end
  redis.call('ZREM', 'd:x', id)
end

-- What nobody told of in time goes on to its next account, where its caller asked for that.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:fo', '-inf', now, 'LIMIT', 0, most)) do
  redis.call('ZREM', 'd:fo', id)
  local job = load(id)
  if job and job.s == 'sent' and not fail_over(job, 'sent', now, 'no receipt came in time', keep) then
    unwatch(job)
    if job.b then look_after(job.b, keep) end
  end
end

-- A code of ours is erased once its verification is over, a card once its purchase is; what is still to be sent has all
-- its life before it.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:v', '-inf', now, 'LIMIT', 0, most)) do
  local v = redis.call('HMGET', job_key(id), 've', 's')
  local expires, busy = tonumber(v[1] or 0), v[2] == 'queued' or v[2] == 'sending'
  if v[2] and (busy or expires > now) then
    redis.call('ZADD', 'd:v', math.max(expires, now + lost_after), id)
  else
    redis.call('ZREM', 'd:v', id)
    if v[2] then redis.call('HDEL', job_key(id), 'vx', 'xc') end
  end
end

for _, provider in ipairs(redis.call('SMEMBERS', 'd:p')) do
  for state in pairs(SETTLED) do
    redis.call('ZREMRANGEBYSCORE', 'd:i:' .. provider .. ':' .. state, '-inf', '(' .. int(now - keep))
  end
  -- Nobody asked about them, since no worker serves them any more.
  redis.call('ZREMRANGEBYSCORE', 'd:f:' .. provider, '-inf', '(' .. int(now - keep))
  -- A queue that loses nothing is never asked about: what it tells of its pace is folded here.
  passed(provider, now, lost_after)
  passed(provider .. '.high', now, lost_after)
end

for ago = 0, 1 do
  local day = math.floor(now / DAY) - ago
  redis.call('PEXPIREAT', 'd:u:' .. date_text(day), int((day + 1) * DAY + ARGV[5]))
end

-- The last entry thrown away is remembered, so that a reader can be told that it missed something.
local oldest = int(now - events_kept)
local gone = redis.call('XREVRANGE', 'd:e', '(' .. oldest .. '-0', '-', 'COUNT', 1)
if gone[1] then
  redis.call('SET', 'd:et', gone[1][1])
  redis.call('XTRIM', 'd:e', 'MINID', oldest)
end
return {#ended, #expired}
