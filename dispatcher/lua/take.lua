-- Take the queued jobs of one message, counting each before its payload is touched.
-- ARGV: token, by which this taker is known from now on; "1" to take suspects too; ms to hold them, ms to keep jobs; ids
-- Returns three lists and the moment in ms: the taken, each {id, d, x, p, l, a, z, created ms, i, vx, xc, qh}; suspects, ids
-- whose earlier holder died, which the caller takes one at a time with nothing beside them; and {id, state} of those
-- there is nothing to do for now.
local token, alone, hold, keep = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local FIRST = 5
local now = now_ms()
local taken, suspects, idle = {}, {}, {}
local latest = {}

-- The jobs in the order asked for, and by id when each was published, of those in an outbox.
local function read_all()
  local jobs, of_queue, published = {}, {}, {}
  for i = FIRST, #ARGV do
    local job = load(ARGV[i])
    jobs[i] = job
    if job then
      local queue = queue_of(job)
      of_queue[queue] = of_queue[queue] or {}
      table.insert(of_queue[queue], job.id)
    end
  end
  for queue, ids in pairs(of_queue) do
    for i, score in ipairs(redis.call('ZMSCORE', 'd:o:' .. queue, unpack(ids))) do published[ids[i]] = tonumber(score) end
  end
  return jobs, published
end

local jobs, published_at = read_all()
for i = FIRST, #ARGV do
  local job, published = jobs[i], published_at[ARGV[i]]
  -- Published again, it stands before or behind others of its time: only first messages tell how far the queue is.
  if published and not job.v.q then
    local queue = queue_of(job)
    latest[queue] = math.max(latest[queue] or 0, published)
  end

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
      -- Once is what being held says.
      set(job, 'k', before ~= 0 and before + 1 or nil)
      set(job, 'u', int(now + hold) .. ' ' .. token)
      taken[#taken + 1] = {
        job.id, job.v.d, job.v.x, job.p, job.v.l or '', job.a, job.z and int(job.z) or '', created(job), job.i or '',
        job.v.vx or '', job.v.xc or '', job.v.qh or '',
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
