-- Put back what `tokens_draw` took out of a budget, and no job was made of.
-- ARGV: name of that call, how many; then where all are of one job that another call may have found by its key at the
--       same moment, its id: one call pays for it, and what the others took is put back
-- Returns 1; 0 where that is done, or too long ago, or where this call pays.
--
-- d:ak:j:<job>  the call that pays for a job, for a minute
local call, amount, job = ARGV[1], ARGV[2], ARGV[3]
if job then
  redis.call('SET', 'd:ak:j:' .. job, call, 'NX', 'PX', 60000)
  if redis.call('GET', 'd:ak:j:' .. job) == call then return 0 end
end
local known = redis.call('GETDEL', 'd:ak:c:' .. call)
if not known then return 0 end
for key in string.gmatch(known, ' (%S+)') do
  -- Of a window that is over nothing is left, and must not come again.
  if redis.call('EXISTS', key) == 1 then redis.call('DECRBY', key, amount) end
end
return 1
