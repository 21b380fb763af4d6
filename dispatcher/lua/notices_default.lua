-- Say who is told where a job names nobody, from now on; nobody where there is no endpoint.
-- ARGV: endpoint or "", patterns of events separated by commas, cb as a job has it
local before = redis.call('HGET', 'd:tf', 'e')
if ARGV[1] == '' then
  redis.call('DEL', 'd:tf')
  return 0
end
redis.call('SET', 'd:tc', last_entry(), 'NX')
if before ~= ARGV[1] then redis.call('HSET', 'd:tf', 'since', last_entry()) end
redis.call('HSET', 'd:tf', 'e', ARGV[1], 'p', ARGV[2], 'cb', ARGV[3])
return 1
