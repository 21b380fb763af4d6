-- Take the queued jobs of one message, counting each before its payload is touched.
-- ARGV: token, by which this taker is known from now on; "1" to take suspects too; ms to hold them, ms to keep jobs; ids
-- Returns three lists and the moment in ms: the taken, each {id, d, x, p, l, a, z, created ms, i, vx, xc}; suspects, ids whose earlier holder died, which
-- the caller takes one at a time with nothing beside them; and {id, state} of those there is nothing to do for now.
local token, alone, hold, keep = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local FIRST = 5
local now = now_ms()
local taken, suspects, idle = {}, {}, {}
local latest = {}

for i = FIRST, #ARGV do
  local job = load(ARGV[i])
  local queue = job and queue_of(job)
  local published = job and tonumber(redis.call('ZSCORE', 'd:o:' .. queue, job.id))
  -- Published again, it stands before or behind others of its time: only first messages tell how far the queue is.
  if published and not job.q then latest[queue] = math.max(latest[queue] or 0, published) end

  if not job then
    idle[#idle + 1] = {ARGV[i], 'gone'}
  elseif job.s ~= 'queued' or not published or (job.held > now and job.taker ~= token) then
    -- Done, parked until later, or in another worker's hands: this message is one too many.
    idle[#idle + 1] = {job.id, job.s}
  else
    -- Made again because its answer was lost, a call finds in its own hands what it took.
    local before = job.taker == token and job.k - 1 or job.k
    if before > 0 and not alone then
      suspects[#suspects + 1] = job.id
    elseif before >= 2 then
      fail(job, 'failed', now, 'internal: taken twice by workers that died with it', 'internal', 'poison', keep)
      idle[#idle + 1] = {job.id, job.s}
    else
      redis.call('HSET', job_key(job.id), 'k', before + 1, 'u', int(now + hold) .. ' ' .. token)
      local v = redis.call('HMGET', job_key(job.id), 'd', 'x', 'vx', 'xc')
      local created = string.match(job.h, '^%d+')
      taken[#taken + 1] = {
        job.id, v[1], v[2], job.p, job.l or '', job.a, job.z and int(job.z) or '', created, job.i or '', v[3] or '',
        v[4] or '',
      }
    end
  end
end

for queue, published in pairs(latest) do
  local slot = int(math.floor(now / 10000))
  local known = tonumber(redis.call('HGET', 'd:g:' .. queue, slot) or 0)
  if published > known then redis.call('HSET', 'd:g:' .. queue, slot, int(published)) end
end
return {taken, suspects, idle, int(now)}
