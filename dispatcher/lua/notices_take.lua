-- Take notices of an endpoint to be told, the next of each subject that is due, and hold the endpoint for that.
-- ARGV: endpoint, token of who tells it, name of this call, ms to hold it, how many at once, how many of these are on
--       their way, ms that is kept what was not delivered, ms after which a paused endpoint's notices are given up
-- Returns {"BUSY"} where another tells it; else {"OK", ms until the next are due or -1, and each notice: cursor, its
--       fields in turn}.
local endpoint, token, call, hold = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local most, flying, kept, old = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local now, known, waits = now_ms(), known_of(endpoint), 'd:tw:' .. endpoint
local MOST = 500

local by, until_ms = held(endpoint)
if by and by ~= '-' and by ~= token and until_ms > now then return {'BUSY'} end
redis.call('HSET', known, 'l', token .. ' ' .. int(now + hold))
redis.call('ZADD', 'd:te', int(now + hold), endpoint)
-- Of one that nothing is known of any more, no longer than it is held.
if redis.call('PTTL', known) < 0 then redis.call('PEXPIRE', known, hold) end

local v = redis.call('HMGET', known, 'g', 'p', 'nb', 'pp', 'f', 'ca')
local function answer(wait, cursors)
  local said = {'OK', wait}
  for _, cursor in ipairs(cursors) do said[#said + 1] = {cursor, redis.call('HGETALL', notice_key(endpoint, cursor))} end
  return said
end

if v[1] then
  local all = redis.call('ZRANGE', 'd:tp:' .. endpoint, 0, MOST - 1)
  return answer(set_all_aside(endpoint, all, 'the endpoint is gone', now, kept) == MOST and 0 or -1, {})
end
if v[4] then
  local past = redis.call('ZRANGEBYSCORE', 'd:tp:' .. endpoint, '-inf', int(now - old), 'LIMIT', 0, MOST)
  if set_all_aside(endpoint, past, 'the endpoint was down for too long', now, kept) > 0 then
    tell_failed(endpoint, 'the endpoint was down for too long', now)
  end
end
local before = math.max(tonumber(v[2] or 0), tonumber(v[3] or 0))
if before > now then return answer(int(before - now), {}) end

if v[6] and string.match(v[6], '^%S+') == call then
  -- Made again, since its answer was lost.
  local cursors = {}
  for cursor in string.gmatch(v[6], ' (%S+)') do cursors[#cursors + 1] = cursor end
  return answer(0, cursors)
end

-- One, to see whether it is there again; few, while it fails.
if v[4] then most = 1 elseif tonumber(v[5] or 0) >= SLOW then most = math.min(most, FEW) end
local cursors = {}
if most > flying then
  for _, subject in ipairs(redis.call('ZRANGEBYSCORE', waits, '-inf', now, 'LIMIT', 0, most - flying)) do
    local list = list_key(endpoint, subject)
    local cursor = redis.call('LINDEX', list, 0)
    -- Of one that was erased nothing is told.
    while cursor and redis.call('EXISTS', notice_key(endpoint, cursor)) == 0 do
      redis.call('LPOP', list)
      redis.call('ZREM', 'd:tp:' .. endpoint, cursor)
      cursor = redis.call('LINDEX', list, 0)
    end
    if cursor then
      redis.call('ZADD', waits, int(now + hold), subject)
      cursors[#cursors + 1] = cursor
    else
      redis.call('ZREM', waits, subject)
    end
  end
end
redis.call('HSET', known, 'ca', call .. ' ' .. table.concat(cursors, ' '))
local next_due = redis.call('ZRANGE', waits, 0, 0, 'WITHSCORES')[2]
return answer(next_due and int(math.max(0, next_due - now)) or -1, cursors)
