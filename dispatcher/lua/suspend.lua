-- Suspend what an account cannot do until its operator mends it; what is suspended already stays as it is.
-- ARGV: account, scope ("account", "funds" or "operation:<name>"), ms until it is looked at, kind, code and message of
--       the failure, the operations that wait (all where there is none), separated by spaces
-- Returns {1 where it was not suspended before, else 0; its record}.
--
-- d:s:<account> is a hash of scope to record: JSON with scope, since, next (ms: when it is looked at), kind, code,
-- message, operations, and left, what the account had when it was last looked at; all of it text.
local key, scope, now = 'd:s:' .. ARGV[1], ARGV[2], now_ms()
local known = redis.call('HGET', key, scope)
if known then
  local record, grown = cjson.decode(known), false
  for operation in string.gmatch(ARGV[7], '%S+') do
    if record.operations ~= '' and not string.find(' ' .. record.operations .. ' ', ' ' .. operation .. ' ', 1, true) then
      record.operations, grown = record.operations .. ' ' .. operation, true
    end
  end
  if grown then
    known = cjson.encode(record)
    redis.call('HSET', key, scope, known)
  end
  return {0, known}
end
local record = cjson.encode({
  scope = scope, since = int(now), next = int(now + tonumber(ARGV[3])), kind = ARGV[4], code = ARGV[5], message = ARGV[6],
  operations = ARGV[7], left = '',
})
redis.call('HSET', key, scope, record)
redis.call('XADD', 'd:e', '*', 't', 'provider.suspended', 'i', ARGV[1], 'd', record)
return {1, record}
