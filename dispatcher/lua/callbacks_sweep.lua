-- Count receipts that nobody wanted, and forget what was set aside long ago.
-- ARGV: ms to keep what is set aside, ms after which an untaken message is lost, how many receipts at most
-- Returns the accounts that were ever called back.
local now = now_ms()
for _, one in ipairs(redis.call('ZRANGEBYSCORE', 'd:cu', '-inf', now, 'LIMIT', 0, ARGV[3])) do
  redis.call('HINCRBY', 'd:cn', string.match(one, '^%S+') .. ' unmatched', 1)
  redis.call('ZREM', 'd:cu', one)
end
redis.call('ZREMRANGEBYSCORE', 'd:cx', '-inf', now - ARGV[1])
local accounts = redis.call('SMEMBERS', 'd:ca')
for _, account in ipairs(accounts) do passed(account .. '.receipts', now, tonumber(ARGV[2])) end
return accounts
