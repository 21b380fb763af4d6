-- Take the queued jobs of one message, counting each before its payload is touched.
-- ARGV: name of this call, ms to hold them, ms to keep jobs, ms to keep events, then the ids
-- Returns three lists: the taken, each {id, d, x, p, l, a, z, created ms}; {id, queue} of those to be published one by
-- one, because an earlier holder died with them; and {id, state} of those there is nothing to do for now.
local call, hold, kept = ARGV[1], tonumber(ARGV[2]), {jobs = ARGV[3], events = ARGV[4]}
local now = now_ms()
local taken, alone, idle = {}, {}, {}
local latest = {}

for i = 5, #ARGV do
  local job = load(ARGV[i])
  local queue = job and queue_of(job)
  local published = job and tonumber(redis.call('ZSCORE', 'd:o:' .. queue, job.id) or nil)
  if published then latest[queue] = math.max(latest[queue] or 0, published) end

  if not job then
    idle[#idle + 1] = {ARGV[i], 'gone'}
  elseif job.s ~= 'queued' or not published or (job.u > now and job.taker ~= call) then
    -- Done, parked until later, or in another worker's hands: this message is one too many.
    idle[#idle + 1] = {job.id, job.s}
  else
    local before = tonumber(redis.call('HGET', job_key(job.id), 'k') or 0)
    -- Made again because its answer was lost, a call finds in its own hands what it took.
    if job.taker == call then before = before - 1 end
    if before > 0 and #ARGV > 5 then
      redis.call('ZADD', 'd:o:' .. queue, now, job.id)
      alone[#alone + 1] = {job.id, queue}
    elseif before >= 2 then
      fail(job, 'failed', now, 'taken twice by workers that died with it', 'internal', 'poison', kept)
      idle[#idle + 1] = {job.id, 'failed'}
    else
      redis.call('HSET', job_key(job.id), 'k', before + 1, 'u', int(now + hold) .. ' ' .. call)
      local v = redis.call('HMGET', job_key(job.id), 'd', 'x')
      local created = string.match(job.h, '^%d+')
      taken[#taken + 1] = {job.id, v[1], v[2], job.p, job.l or '', job.a, job.z and int(job.z) or '', created}
    end
  end
end

for queue, published in pairs(latest) do
  local slot = int(math.floor(now / 10000))
  local known = tonumber(redis.call('HGET', 'd:g:' .. queue, slot) or 0)
  if published > known then redis.call('HSET', 'd:g:' .. queue, slot, int(published)) end
end
return {taken, alone, idle}
