-- Assert claims again that Redis lost: what was sent under them must not be sent again.
-- ARGV: a "1" for each job that was won and a "0" for each that was not, in one word; then the claim's own arguments
-- Returns how many of them were lost.
local token, lease, keep = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local now = now_ms()
local lost = 0

local i, position = 5, 1
while i <= #ARGV do
  local pairs_left = tonumber(ARGV[i + 3])
  local job = string.sub(ARGV[1], position, position) == '1' and load(ARGV[i])
  if job and job.s == 'queued' and job.f ~= token then
    local fields = {'f', token, 'a', job.a + 1, 'o', ARGV[i + 1]}
    for f = i + 4, i + 3 + 2 * pairs_left do fields[#fields + 1] = ARGV[f] end
    move(job, 'sending', now, 'claimed before, and Redis had lost that', keep)
    redis.call('HDEL', job_key(job.id), 'k', 'q', 'vb')
    redis.call('HSET', job_key(job.id), unpack(fields))
    redis.call('ZADD', 'd:l', now + lease, job.id)
    lost = lost + 1
  end
  i, position = i + 4 + 2 * pairs_left, position + 1
end
return lost
