-- Lift what is suspended of an account; the caller then lets the jobs go on that wait for it, with `free`.
-- ARGV: account, then scopes; none for all
-- Returns the records of what was lifted.
local key, lifted = 'd:s:' .. ARGV[1], {}
local scopes = ARGV[2] and {unpack(ARGV, 2)} or redis.call('HKEYS', key)
for _, scope in ipairs(scopes) do
  local record = redis.call('HGET', key, scope)
  if record then
    redis.call('HDEL', key, scope)
    redis.call('XADD', 'd:e', '*', 't', 'provider.resumed', 'i', ARGV[1], 'd', record)
    lifted[#lifted + 1] = record
  end
end
return lifted
