-- Write whether the balance of an account is low; that it became so is told, until it rose again.
-- ARGV: account, its balance, what it should not be below, "1" where it is
--
-- d:lb is a hash of accounts whose balance is low to JSON: balance, below, since (ms).
local known = redis.call('HGET', 'd:lb', ARGV[1])
if ARGV[4] ~= '1' then
  redis.call('HDEL', 'd:lb', ARGV[1])
  return 0
end
local since = known and cjson.decode(known).since or int(now_ms())
local told = cjson.encode({provider = ARGV[1], balance = ARGV[2], below = ARGV[3], since = since})
redis.call('HSET', 'd:lb', ARGV[1], told)
if not known then redis.call('XADD', 'd:e', '*', 't', 'provider.low_balance', 'i', ARGV[1], 'j', told) end
return known and 0 or 1
