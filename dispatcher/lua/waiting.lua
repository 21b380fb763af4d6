-- Tell where there is something for the clock to do. It changes nothing, so that a quiet system costs one call a tick.
-- Returns the queues with jobs whose time has come, and the accounts with jobs that wait for their turn.
local now, due, lined = now_ms(), {}, {}
local accounts = redis.call('SMEMBERS', 'd:p')
table.sort(accounts)
for _, account in ipairs(accounts) do
  local is_lined = false
  for _, queue in ipairs({account .. '.high', account}) do
    if redis.call('ZCOUNT', 'd:w:' .. queue, '-inf', now) > 0 then due[#due + 1] = queue end
    is_lined = is_lined or redis.call('EXISTS', 'd:qt:' .. queue) == 1
  end
  if is_lined then lined[#lined + 1] = account end
end
return {due, lined}
