-- Find an account's callbacks whose message is lost, and count it as published now; the caller publishes it again.
-- ARGV: account, "1" where the broker's queue is empty, ms after which an untaken message is lost, how many at most
-- Returns their ids. Lost means what it means of jobs; of one that was published again while it was read nothing is left.
local account, empty, after = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local outbox, now, ids = 'd:co:' .. account, now_ms(), {}
local taken = passed(account .. '.receipts', now, after)
local old = redis.call('ZRANGEBYSCORE', outbox, '-inf', now - after, 'WITHSCORES', 'LIMIT', 0, ARGV[4])
for i = 1, #old, 2 do
  if redis.call('EXISTS', 'd:cb:' .. old[i]) == 0 then
    redis.call('ZREM', outbox, old[i])
  elseif empty or tonumber(old[i + 1]) <= taken then
    redis.call('ZADD', outbox, now, old[i])
    ids[#ids + 1] = old[i]
  end
end
return ids
