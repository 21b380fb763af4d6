-- Take the jobs of a provider that it is time to ask about; each comes again after as long as it has waited by then.
-- ARGV: provider, "1" where it can be asked about what is sent, "1" about what is unknown, ms that a receipt is waited for,
--       ms between two looks at least and at most, how many at most
-- Returns for each {id, d, x, p, l, a, z, created ms, i, vx, xc, qh, state, ms it came there, ms since then, m, vb}.
local provider, sent, unknown = ARGV[1], ARGV[2] == '1', ARGV[3] == '1'
local waited, least, longest = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local key, now = 'd:f:' .. provider, now_ms()
local answer = {}

-- When a job came into the state it is in: the first of the lines at the end of its history that name it.
local function since(job)
  local at
  for ms, state in string.gmatch(job.h, '(%d+) (%S+) [^\n]*') do
    if state ~= job.s then at = nil elseif not at then at = tonumber(ms) end
  end
  return at or now
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ARGV[7])) do
  local job = load(id)
  local waits = job and (job.s == 'sent' or job.s == 'unknown')
  local came = waits and since(job)
  local asked = waits and ((job.s == 'sent' and sent) or (job.s == 'unknown' and unknown))
  if not waits or (job.s == 'unknown' and not unknown) or now - came >= waited then
    zrem(key, id)
    if waits and job.s == 'sent' then
      set(job, 'y', 'timed_out')
      note(job, now, 'no receipt came in time')
    end
  elseif not asked then
    zadd(key, came + waited, id)
  else
    local next = now + math.max(least, math.min(now - came, longest))
    zadd(key, math.min(next, math.max(came + waited, now + least)), id)
    answer[#answer + 1] = {
      id, job.v.d, job.v.x, job.p, job.v.l or '', job.a, job.z and int(job.z) or '', created(job), job.i or '', '', '',
      job.v.qh or '', job.s, int(came), int(now - came), job.v.m or '', job.v.vb or '',
    }
  end
end
return answer
