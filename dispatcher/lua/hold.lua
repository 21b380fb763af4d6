-- Hold as unknown what may have been sent in a part of history that Redis lost: what was out, and what was due since.
-- ARGV: the server's run; ms until which a job that may have been sent was made; ms to keep jobs, how many of each
--       queue at most
-- Returns how many were held; the caller comes again until there are none.
-- Another worker came to the end of this, and jobs are being sent.
if redis.call('GET', 'd:er') == ARGV[1] then return 0 end
local last, keep, most = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local now = now_ms()
local held = 0

local function hold(id)
  local job = load(id)
  -- What was made since has not been in anybody's hands.
  if not job or job.s ~= 'queued' or tonumber(created(job)) > last then return end
  move(job, 'unknown', now, 'Redis lost recent history, in which it may have been sent', keep)
  held = held + 1
end

-- Of those that wait for their turn nobody knows either whose it was since.
local function hold_line(queue, tenant, batch)
  local line = line_key(queue, batch, tenant)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', line, '-inf', '(' .. int(last + 1), 'LIMIT', 0, most)) do hold(id) end
end

for _, provider in ipairs(redis.call('SMEMBERS', 'd:p')) do
  for _, queue in ipairs({provider, provider .. '.high'}) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:o:' .. queue, '-inf', last, 'LIMIT', 0, most)) do hold(id) end
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'd:w:' .. queue, '-inf', now, 'LIMIT', 0, most)) do hold(id) end
    for _, tenant in ipairs(redis.call('ZRANGE', 'd:qt:' .. queue, 0, -1)) do
      for _, batch in ipairs(redis.call('ZRANGE', 'd:qb:' .. queue .. ':' .. tenant, 0, -1)) do
        hold_line(queue, tenant, batch)
      end
    end
  end
end
return held
