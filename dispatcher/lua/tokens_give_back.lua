-- Put back what `tokens_draw` took out of a budget, and no job was made of.
-- ARGV: name of that call, how many
-- Returns 1; 0 where that is done, or too long ago.
local known = redis.call('GETDEL', 'd:ak:c:' .. ARGV[1])
if not known then return 0 end
for key in string.gmatch(known, ' (%S+)') do
  -- Of a window that is over nothing is left, and must not come again.
  if redis.call('EXISTS', key) == 1 then redis.call('DECRBY', key, ARGV[2]) end
end
return 1
