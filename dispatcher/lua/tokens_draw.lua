-- Take jobs out of the budget of a token of the HTTP API, all or none, before any of them is made.
-- ARGV: name of this call, id of the token, how many, hash of the idempotency key that it is one job of or "", then of
--       each window: count, ms
-- Returns {1, now in ms}; or {0, ms until there is room, -1 for never}. A job that is there already costs nothing.
--
-- A window begins at a whole multiple of its length since 1970, so that a day is one in UTC.
-- d:ak:u:<token>:<ms>:<start>  how many jobs of a window are used
-- d:ak:c:<call>                what a call took, for a minute: made again because its answer was lost, it takes no more
local call, id, amount, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms()
local known = redis.call('GET', 'd:ak:c:' .. call)
if known then return {1, tonumber(string.match(known, '^%d+'))} end
local made = ARGV[4] ~= '' and redis.call('GET', 'd:k:' .. ARGV[4])
if made and redis.call('EXISTS', 'd:j:' .. string.match(made, '^%S+')) == 1 then return {1, now} end

local keys, wait = {}, 0
for i = 5, #ARGV, 2 do
  local count, length = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local start = now - now % length
  local key = 'd:ak:u:' .. id .. ':' .. int(length) .. ':' .. int(start)
  if amount > count then return {0, -1} end
  if tonumber(redis.call('GET', key) or 0) + amount > count then wait = math.max(wait, start + length - now) end
  keys[#keys + 1] = {key, start + length - now}
end
if wait > 0 then return {0, wait} end

local took = int(now)
for _, one in ipairs(keys) do
  redis.call('INCRBY', one[1], amount)
  redis.call('PEXPIRE', one[1], int(one[2]))
  took = took .. ' ' .. one[1]
end
redis.call('SET', 'd:ak:c:' .. call, took, 'PX', 60000)
return {1, now}
