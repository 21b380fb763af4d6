-- Claim taken jobs just before their request is written: the intent is durable before a byte leaves.
-- ARGV: the taker's token, which fences what follows; ms of the lease, ms to keep jobs; then for each job: id, whether it
--       may be repeated (never, once, always), the hash of the number that it texts or "", n, and n pairs of field and value to set with it
-- Returns how many claims there ever were, by which a history that went back is noticed; then for each job 1 where it is
-- ours, else its state. Made again because its answer was lost, a call finds its own.
local token, lease, keep = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = now_ms()
local answer, won = {0}, 0

local i = 4
while i <= #ARGV do
  local job, repeated, fields = load(ARGV[i]), ARGV[i + 1], {}
  local number, pairs_left = ARGV[i + 2], tonumber(ARGV[i + 3])
  for f = i + 4, i + 3 + 2 * pairs_left do fields[#fields + 1] = ARGV[f] end
  i = i + 4 + 2 * pairs_left
  if not job then
    answer[#answer + 1] = 'gone'
  elseif job.s == 'sending' and job.f == token then
    answer[#answer + 1] = 1
  elseif job.s ~= 'queued' or job.taker ~= token then
    answer[#answer + 1] = job.s
  elseif job.z and job.z <= now then
    fail(job, 'expired', now, 'its time passed before it was sent', 'expired', '', keep)
    answer[#answer + 1] = job.s
  elseif number ~= '' and redis.call('HEXISTS', 'd:no', number) == 1 then
    leave_alone(job, now, keep)
    answer[#answer + 1] = job.s
  else
    move(job, 'sending', now, 'attempt ' .. (job.a + 1), keep)
    -- What was read before an earlier attempt says nothing of this one.
    redis.call('HDEL', job_key(job.id), 'k', 'q', 'vb')
    redis.call('HSET', job_key(job.id), 'f', token, 'a', job.a + 1, 'o', repeated, unpack(fields))
    redis.call('ZADD', 'd:l', now + lease, job.id)
    local expires = #fields > 0 and redis.call('HMGET', job_key(job.id), 'vx', 've')
    if expires and expires[1] and expires[2] then redis.call('ZADD', 'd:v', expires[2], job.id) end
    answer[#answer + 1] = 1
    won = won + 1
  end
end
if won > 0 then redis.call('HSET', 'd:c', 'at', int(now)) end
answer[1] = won > 0 and redis.call('HINCRBY', 'd:c', 'n', won) or tonumber(redis.call('HGET', 'd:c', 'n') or 0)
return answer
