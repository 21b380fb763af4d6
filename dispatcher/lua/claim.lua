-- Claim taken jobs just before their request is written: the intent is durable before a byte leaves.
-- ARGV: ms of the lease, ms to keep jobs, "1" where those are ended that may not be sent, and nothing is claimed, else "";
--       n, and n budget counters: name, rule, unit ("messages", "segments", "money <currency>"), "day" or "month", cap, the
--       amount a warning comes at; then for each job: the taker's token, which fences what follows; id, whether it may be
--       repeated (never, once, always, resend), the hash of the number that it texts or "", that number's country or "",
--       its segments (0 where it is no text), "<millionths> <currency>" of a segment or "", the counters that it counts in
--       (their positions, separated by spaces), the hashes of its tenant, its sender and both, where it has these,
--       separated by spaces, n, and n pairs of field and value to set with it
-- Returns how many claims there ever were, by which a history that went back is noticed; then for each job 1 where it is
-- ours, else its state, or "failed:refused" where it is ended just now since a budget or its country leaves no room, or
-- "queued:worker" where it waits for a worker that can look whether its number wants no texts. Made again because its answer
-- was lost, a call finds its own. A job counts in a budget once, however often it is claimed.
local lease, keep, ends_only = tonumber(ARGV[1]), ARGV[2], ARGV[3] == '1'
local now = now_ms()
local answer, won = {0}, 0
-- Ms until another worker may have a text whose number this one cannot hash.
local ELSEWHERE = 60000

-- End a job that has no room in a budget; answers whether it did.
local function stopped(job, adds)
  local counter, day = used_up(adds, now)
  if not counter then return false end
  local why = 'budget: ' .. counter.rule .. ' is used up until ' .. date_text(day) .. ' 00:00 UTC'
  fail(job, 'failed', now, why, 'refused', 'budget', keep)
  return true
end

-- Let a text go on to the next account of its route, where its own blocks somebody who wants texts since; answers whether
-- it does. Where there is none it is asked: perhaps it blocks them no more.
local function passed_on(job, claim)
  if not (claim.blocked and blocks_of(claim.number)[job.p]) then return false end
  local account, position = following(job)
  if not account then
    claim.tries_block = true
    return false
  end
  note(job, now, 'moves to ' .. account .. ': ' .. job.p .. ' itself blocks them')
  go_on(job, account, position, now)
  park(job, 'retry', now)
  return true
end

-- Let a text wait for a worker with a hash key, where there is a list of those who want none and the claim has no number to
-- ask it for; answers whether it does. A worker without a key does not start where there is one, but this may be of before.
local function cannot_ask(job, claim)
  if ends_only or claim.number ~= '' or claim.text.segments == 0 or job.v.ps then return false end
  if redis.call('EXISTS', 'd:no') == 0 then return false end
  local detail = 'waits for a worker with its keys'
  if string.sub(job.h, -#detail - 1) ~= ' ' .. detail then note(job, now, detail) end
  park(job, 'worker', now + ELSEWHERE)
  return true
end

local closed = redis.call('EXISTS', 'd:kc') == 1
local claims = read_claims(4)
local texts = {}
for _, claim in ipairs(claims) do
  if claim.number ~= '' then texts[#texts + 1] = claim end
end
ask_list(texts)

for _, claim in ipairs(claims) do
  local job, text, token = load(claim.id), claim.text, claim.token
  if not job then
    answer[#answer + 1] = 'gone'
  elseif job.s == 'sending' and job.f == token then
    answer[#answer + 1] = 1
  elseif job.s ~= 'queued' or job.taker ~= token then
    answer[#answer + 1] = job.s
  elseif job.z and job.z <= now then
    fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', keep)
    answer[#answer + 1] = job.s
  elseif code_is_over(job) then
    fail(job, 'cancelled', now, 'its verification is over', 'refused', 'cancelled', keep)
    answer[#answer + 1] = job.s
  elseif claim.alone and not job.v.ps then
    leave_alone(job, now, keep)
    answer[#answer + 1] = job.s
  elseif cannot_ask(job, claim) then
    answer[#answer + 1] = 'queued:worker'
  elseif passed_on(job, claim) then
    answer[#answer + 1] = job.s
  else
    estimate(job.p, text, claim.each)
    local adds = uncounted(job, claim.mine, text)
    if (closed and shut_out(job, text.country, now, keep)) or stopped(job, adds) then
      answer[#answer + 1] = job.s == 'failed' and 'failed:refused' or job.s
    elseif ends_only then
      answer[#answer + 1] = job.s
    else
      take_claim(job, claim, adds, 'attempt ' .. (job.a + 1), now, lease, keep)
      if claim.tries_block then set(job, 'bl', claim.number) end
      if #claim.fields > 0 and job.v.vx and job.v.ve then zadd('d:v', job.v.ve, job.id) end
      answer[#answer + 1] = 1
      won = won + 1
    end
  end
end
close_budgets()
if won > 0 then redis.call('HSET', 'd:c', 'at', int(now)) end
answer[1] = won > 0 and redis.call('HINCRBY', 'd:c', 'n', won) or tonumber(redis.call('HGET', 'd:c', 'n') or 0)
return answer
