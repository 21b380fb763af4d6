-- Answer what is suspended of some accounts.
-- ARGV: the accounts
-- Returns {now in ms, for each account the list of its records}.
local answer = {int(now_ms())}
for i = 1, #ARGV do answer[i + 1] = redis.call('HVALS', 'd:s:' .. ARGV[i]) end
return answer
