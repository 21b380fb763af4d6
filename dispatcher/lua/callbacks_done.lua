-- Forget a callback that was read, and count what came of it.
-- ARGV: id, account, ms that receipts wait for their job, how many came too early, the hash of each one's reference; then
--       pairs of what is counted, and how many
-- Returns 1, or 0 where it was forgotten before: then nothing is counted a second time.
local id, account, waited, early = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREM', 'd:co:' .. account, id)
if redis.call('DEL', 'd:cb:' .. id) == 0 then return 0 end
for i = 5, 4 + early do
  -- Its job may have been there a moment after it.
  if redis.call('EXISTS', 'd:ye:' .. ARGV[i]) == 1 then
    redis.call('ZADD', 'd:cu', 'NX', now_ms() + waited, account .. ' ' .. ARGV[i])
  end
end
for i = 5 + early, #ARGV, 2 do redis.call('HINCRBY', 'd:cn', account .. ' ' .. ARGV[i], ARGV[i + 1]) end
return 1
