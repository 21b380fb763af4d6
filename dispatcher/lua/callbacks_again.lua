-- Give callbacks that were set aside another chance; the caller publishes them.
-- ARGV: how many at most
-- Returns pairs of account and id.
local again = {}
for _, id in ipairs(redis.call('ZRANGE', 'd:cx', 0, ARGV[1] - 1)) do
  local account = redis.call('HGET', 'd:cb:' .. id, 'a')
  redis.call('ZREM', 'd:cx', id)
  if account then
    redis.call('PERSIST', 'd:cb:' .. id)
    redis.call('HDEL', 'd:cb:' .. id, 'k')
    redis.call('ZADD', 'd:co:' .. account, now_ms(), id)
    again[#again + 1] = account
    again[#again + 1] = id
  end
end
return again
