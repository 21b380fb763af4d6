-- Say for lookups that are about to be asked what is remembered of their number, or whose request they share.
-- ARGV: ms that an answer is remembered, ms that a job leads which was not claimed, ms to keep jobs; then for each job:
--       the taker's token, id, the hash of its number, "1" where only an answer will do that was asked for after the job
--       was made, else ""
-- Returns for each {"ask", now in ms} where it asks itself, and leads: others wait for its answer; {"known", now in ms,
--       account, what is remembered}; or {"is", state} where there is nothing to ask: it waits for the answer of another,
--       or is not the token's any more. Made again because its answer was lost, a call finds that it leads, or waits.
--
-- d:lk:<hash> is a hash of account to what is remembered: "<ms it was asked at> <job> <sealed result>".
-- d:lk:<hash>:<account> is a hash while somebody asks: l "<job> <ms until which it leads> <ms it leads since>", and the
-- ids of those that wait for it. One leads as long as its job says so in `lk`: it ends with the job, or as that waits.
local lifetime, lease, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local now = now_ms()

-- The moment before which nothing may have been asked that a job takes for an answer.
local function oldest(job, fresh)
  return fresh and tonumber(created(job)) or 0
end

local function remembered(job, number, fresh)
  local entry = redis.call('HGET', 'd:lk:' .. number, job.p)
  local at = entry and tonumber(string.match(entry, '^%d+'))
  return at and at + lifetime > now and at >= oldest(job, fresh) and entry
end

-- The job that asks for `lead` now, and when it is looked at again whether it still does; none where nobody does.
local function leader(job, lead, fresh)
  local told = redis.call('HGET', 'd:lk:' .. lead, 'l')
  if not told then return nil end
  local id, ends, since = string.match(told, '^(%S+) (%d+) (%d+)$')
  if id == job.id or tonumber(since) < oldest(job, fresh) then return nil end
  local other = load(id)
  if not other or other.v.lk ~= lead then return nil end
  if other.s == 'sending' then return id, math.max(tonumber(ends), now + 1000) end
  if other.s == 'queued' and tonumber(ends) > now then return id, tonumber(ends) end
end

local function follow(job, lead, id, due)
  redis.call('HSET', 'd:lk:' .. lead, job.id, '1')
  redis.call('PEXPIRE', 'd:lk:' .. lead, int(due - now + lease))
  local detail = 'waits for the answer to job ' .. id
  if string.sub(job.h, -#detail - 1) ~= ' ' .. detail then note(job, now, detail) end
  park(job, 'lookup', due)
end

local function begin(job, lead)
  if job.v.lk ~= lead then
    let_follow(job, now)
    set(job, 'lk', lead)
  end
  redis.call('HSET', 'd:lk:' .. lead, 'l', job.id .. ' ' .. int(now + lease) .. ' ' .. int(now))
  redis.call('PEXPIRE', 'd:lk:' .. lead, int(2 * lease))
end

local function judge(job, number, fresh)
  if job.z and job.z <= now then
    fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', keep)
    return {'is', job.s}
  end
  local entry, lead = remembered(job, number, fresh), number .. ':' .. job.p
  if entry then return {'known', int(now), job.p, entry} end
  local id, due = leader(job, lead, fresh)
  if id then
    follow(job, lead, id, due)
    return {'is', 'queued'}
  end
  begin(job, lead)
  return {'ask', int(now)}
end

local answer = {}
for i = 4, #ARGV, 4 do
  local job = load(ARGV[i + 1])
  if not job then
    answer[#answer + 1] = {'is', 'gone'}
  elseif job.s ~= 'queued' or job.taker ~= ARGV[i] then
    answer[#answer + 1] = {'is', job.s}
  else
    answer[#answer + 1] = judge(job, ARGV[i + 2], ARGV[i + 3] == '1')
  end
end
return answer
