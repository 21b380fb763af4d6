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
    local repeated = job.v.o
    local harmless = repeated == 'always' or (repeated == 'once' and job.a <= 1)
    if harmless or (repeated == 'resend' and not job.i) then
      local why = harmless and 'asking again is harmless' or RESENT
      move(job, 'queued', now, 'its worker died; ' .. why, keep)
      set(job, 'i', '1')
      job.i = '1'
      wait_again(job, 'retry', now, now, keep)
    else
      move(job, 'unknown', now, 'its worker died while the request may have been on the wire', keep)
    end
  end
  zrem('d:l', id)
end
write_all()

local expired = redis.call('ZRANGEBYSCORE', 'd:x', '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(expired) do
  local job = load(id)
  if job and job.s == 'queued' then fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', keep) end
  zrem('d:x', id)
end
write_all()

-- What nobody told of in time goes on to its next account, where its caller asked for that.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:fo', '-inf', now, 'LIMIT', 0, most)) do
  zrem('d:fo', id)
  local job = load(id)
  if job and job.s == 'sent' and not fail_over(job, 'sent', now, 'no receipt came in time', keep) then
    unwatch(job)
    if job.b then look_after(job.b, keep) end
  end
end
write_all()

-- A code of ours is erased once its verification is over, a card once its purchase is; what is still to be sent has all
-- its life before it.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:v', '-inf', now, 'LIMIT', 0, most)) do
  local job = load(id)
  local expires, busy = job and tonumber(job.v.ve or 0), job and (job.s == 'queued' or job.s == 'sending')
  if job and (busy or expires > now) then
    zadd('d:v', math.max(expires, now + lost_after), id)
  else
    zrem('d:v', id)
    if job then
      set(job, 'vx', nil)
      set(job, 'xc', nil)
    end
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

-- Their lists of jobs by number have gone by themselves, but for one that was deleted by hand and came again.
for _, day in ipairs(redis.call('ZRANGEBYSCORE', 'd:nd', '-inf', now)) do
  redis.call('DEL', 'd:n:' .. day)
  redis.call('ZREM', 'd:nd', day)
end

for ago = 0, 1 do
  local day = math.floor(now / DAY) - ago
  redis.call('PEXPIREAT', 'd:u:' .. date_text(day), int((day + 1) * DAY + ARGV[5]))
end

-- The last entry thrown away is remembered, so that a reader can be told that it missed something.
-- Nobody throws away what somebody is still to be told of.
local oldest, moved = now - events_kept, redis.call('GET', 'd:tc')
local waiting = moved and redis.call('XRANGE', 'd:e', '(' .. moved, '+', 'COUNT', 1)[1]
if waiting then oldest = math.min(oldest, tonumber(string.match(waiting[1], '^%d+'))) end
oldest = int(oldest)
local gone = redis.call('XREVRANGE', 'd:e', '(' .. oldest .. '-0', '-', 'COUNT', 1)
if gone[1] then
  redis.call('SET', 'd:et', gone[1][1])
  redis.call('XTRIM', 'd:e', 'MINID', oldest)
end
return {#ended, #expired}
