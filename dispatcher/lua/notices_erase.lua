-- Erase notices: those that told what a person said who is to be forgotten.
-- ARGV: the endpoint, then cursors
-- Returns how many were there.
local endpoint, now, count = ARGV[1], now_ms(), 0
for i = 2, #ARGV do
  local subject = redis.call('HGET', notice_key(endpoint, ARGV[i]), 's')
  if subject then take_out(endpoint, ARGV[i], subject, now) end
  redis.call('ZREM', 'd:tp:' .. endpoint, ARGV[i])
  redis.call('ZREM', 'd:tx', endpoint .. ' ' .. ARGV[i])
  count = count + redis.call('DEL', notice_key(endpoint, ARGV[i]))
end
return count
