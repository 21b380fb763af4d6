-- Hand jobs from the lines of an account to its workers, its tenants and their batches in turn.
-- ARGV: account, ms ahead that a permit may lie, how many at most
-- Returns a list of ids for its high queue and one for the other; the caller publishes them.
--
-- What is with the workers already is served in order, so it is kept short: as many as they take in about half a second,
-- and as the limits let them send. That leaves codes and other tenants little to wait for, and enough to do.
local account, ahead, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
local LEAST_OUT, MOST_OUT, SLOWLY, TURN = 100, 5000, 1000, 25
-- Lines, and jobs of each, that are looked at while nobody may be sent anything.
local LINES, EACH = 20, 20

-- How many jobs of a queue may be with its workers: twice as many where they ran short of them, slowly fewer where most
-- were left.
local function grown(queue, out)
  local n, key = most_out(queue), 'd:qw:' .. queue
  local since = now - tonumber(redis.call('HGET', key, 'at') or 0)
  if out <= n / 4 and n < MOST_OUT then
    n = math.min(MOST_OUT, n * 2)
  elseif out > n * 3 / 4 and n > LEAST_OUT and since >= SLOWLY then
    n = math.max(LEAST_OUT, math.floor(n * 0.8))
  else
    return n
  end
  redis.call('HSET', key, 'n', n, 'at', int(now))
  return n
end

-- Take as many as `left` jobs from the line whose turn it is, all where no other waits; `dealt` has their ids then.
local function turn(queue, left, dealt)
  local tenants = redis.call('ZRANGE', 'd:qt:' .. queue, 0, 1)
  local tenant = tenants[1]
  local batches = redis.call('ZRANGE', 'd:qb:' .. queue .. ':' .. tenant, 0, 1)
  local batch = batches[1]
  local most = #tenants == 1 and #batches == 1 and left or math.min(left, TURN)
  local taken = redis.call('ZPOPMIN', line_key(queue, batch, tenant), most)
  for i = 1, #taken, 2 do
    local id = taken[i]
    dealt[#dealt + 1] = id
    zadd('d:o:' .. queue, now, id)
    -- What was put into its line with the ms it was made at came back, and says that it waits.
    local job = tonumber(taken[i + 1]) % 1 == 0 and load(id)
    if job then set(job, 'w', nil) end
  end
  redis.call('ZINCRBY', 'd:qb:' .. queue .. ':' .. tenant, #taken / 2, batch)
  redis.call('ZINCRBY', 'd:qt:' .. queue, #taken / 2, tenant)
  tidy_line(queue, batch, tenant, false)
end

-- Let jobs go on to the next account of their route, where they have one: this one is left alone for a while. Those of
-- one line were asked for alike.
local function move_on(queue)
  for _, tenant in ipairs(redis.call('ZRANGE', 'd:qt:' .. queue, 0, LINES - 1)) do
    for _, batch in ipairs(redis.call('ZRANGE', 'd:qb:' .. queue .. ':' .. tenant, 0, LINES - 1)) do
      for _, id in ipairs(redis.call('ZRANGE', line_key(queue, batch, tenant), 0, EACH - 1)) do
        local job = load(id)
        local next, position = following(job)
        if not next then break end
        note(job, now, 'moves to ' .. next .. ': ' .. account .. ' is left alone for a while')
        go_on(job, next, position, now)
        park(job, 'retry', now)
      end
    end
  end
  write_all()
end

-- Whether nobody is sent anything for a while: its breaker is open, or it throttled us three times in a row at least,
-- each time at half the rate of the time before.
local function left_alone()
  local breaker, until_us, part = unpack(redis.call('HMGET', 'd:lm:' .. account, 'bs', 'pu', 'pf'))
  if breaker == 'open' then return true end
  return tonumber(until_us or 0) > now * 1000 and tonumber(part or 1) <= 1 / 8
end

-- Hand out jobs of a queue; `with` are those of other queues that draw from the same limits before them.
local function deal(queue, high, with)
  local out = redis.call('ZCARD', 'd:o:' .. queue)
  local dealt = {}
  if redis.call('EXISTS', 'd:qt:' .. queue) == 0 then return dealt, out end
  if left_alone() then move_on(queue) end
  local left = math.min(most, grown(queue, out) - out, room(account, high, ahead, now) - out - with)
  while #dealt < left and redis.call('EXISTS', 'd:qt:' .. queue) == 1 do
    turn(queue, left - #dealt, dealt)
  end
  return dealt, out + #dealt
end

local high, out = deal(account .. '.high', true, 0)
local normal = deal(account, false, out)
return {high, normal}
