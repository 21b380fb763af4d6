-- Take the jobs of a queue that are due: into its outbox, or into their lines where others wait for their turn.
-- ARGV: queue, how many at most
-- Returns how many were due, and the ids of those that the caller publishes.
local queue, now = ARGV[1], now_ms()
local ids = redis.call('ZRANGEBYSCORE', 'd:w:' .. queue, '-inf', now, 'LIMIT', 0, ARGV[2])
local at_once = room_at_once(queue)
local out = {}
for _, id in ipairs(ids) do
  zrem('d:w:' .. queue, id)
  local job = load(id)
  if job and job.s == 'queued' then
    set(job, 'w', nil)
    if #out < at_once then
      zadd('d:o:' .. queue, now, id)
      out[#out + 1] = id
    else
      line_up(queue, id, job.b or '', job.tn, created(job))
    end
  end
end
return {#ids, out}
