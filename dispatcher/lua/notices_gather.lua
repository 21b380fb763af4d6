-- Move entries of the stream to the notices of those who are to be told of them, and answer which endpoints are due.
-- ARGV: how many entries, ms that notices wait at most, ms that is kept what was not delivered, ms until a message that
--       tells somebody to look at an endpoint counts as lost, how many endpoints: 0 where the caller publishes none
-- Returns how many entries were moved, the last of all, endpoints that the caller publishes, ms until the next are due, or
--       -1. Made again because its answer was lost, a call costs those endpoints the time of a lost message.
local most, waits, kept, lost_after, published = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local moved = redis.call('GET', 'd:tc')
if not moved then return {0, '', {}, -1} end
local now = now_ms()

local default, stored = {}, redis.call('HGETALL', 'd:tf')
for i = 1, #stored, 2 do default[stored[i]] = stored[i + 1] end

-- Whether the default endpoint is told of an event: by its whole type, or by a beginning with a star.
local function is_wanted(event)
  for pattern in string.gmatch(default.p or '', '[^,]+') do
    if pattern == event or pattern == '*' then return true end
    if string.sub(pattern, -1) == '*' and string.sub(event, 1, #pattern - 1) == string.sub(pattern, 1, -2) then return true end
  end
  return false
end

-- What the jobs and batches have of the callbacks that their events name.
local callbacks = {}
local function callback_of(key)
  if callbacks[key] == nil then callbacks[key] = redis.call('HGET', key, 'cb') end
  return callbacks[key]
end

-- The callback of an entry, none where nobody is told.
local function told_by(entry, v)
  if v.u then
    return v.u ~= '-' and callback_of((v.n and 'd:j:' or 'd:b:') .. v.i) or nil
  end
  -- Of itself an endpoint is told nothing.
  if not default.e or string.sub(v.t, 1, 9) == 'callback.' and v.i == default.e then return nil end
  if is_wanted(v.t) and comes_after(entry, default.since) then return default.cb end
end

local function move(entry, fields)
  local v = {}
  for i = 1, #fields, 2 do v[fields[i]] = fields[i + 1] end
  local callback = v.t and v.i and told_by(entry, v)
  local ids, shown = string.match(callback or '', '^(%S+) %S+ (%S+)$')
  if not ids then return end
  local subject, record = v.b and 'b:' .. v.i or v.i, {}
  for i = 1, #fields, 2 do
    if fields[i] ~= 'u' then
      record[#record + 1] = fields[i]
      record[#record + 1] = fields[i + 1]
    end
  end
  local names = string.gmatch(shown, '[^,]+')
  for endpoint in string.gmatch(ids, '[^,]+') do
    local key, known = notice_key(endpoint, entry), known_of(endpoint)
    redis.call('HSET', key, 'cb', callback, 's', subject, 'q', int(now), unpack(record))
    redis.call('HSETNX', known, 's', names() or '')
    touch_endpoint(endpoint, now, waits)
    if redis.call('HEXISTS', known, 'g') == 1 then
      set_aside(endpoint, entry, 'the endpoint is gone', now, kept)
    else
      put(endpoint, entry, subject, now, waits)
      look_at(endpoint, now, now)
    end
  end
end

local page = redis.call('XRANGE', 'd:e', '(' .. moved, '+', 'COUNT', most)
for _, entry in ipairs(page) do
  move(entry[1], entry[2])
  moved = entry[1]
end
if #page > 0 then redis.call('SET', 'd:tc', moved) end

redis.call('ZREMRANGEBYSCORE', 'd:tx', '-inf', '(' .. int(now - kept))
redis.call('ZREMRANGEBYSCORE', 'd:ta', '-inf', '(' .. int(now - waits))
-- Nobody told them, and what waited there is gone by now.
redis.call('ZREMRANGEBYSCORE', 'd:te', '-inf', '(' .. int(now - waits))
if published == 0 then return {#page, moved, {}, -1} end

local due = redis.call('ZRANGEBYSCORE', 'd:te', '-inf', now, 'LIMIT', 0, published)
for _, endpoint in ipairs(due) do
  redis.call('HSET', known_of(endpoint), 'l', '- ' .. int(now + lost_after))
  redis.call('PEXPIRE', known_of(endpoint), waits)
  redis.call('ZADD', 'd:te', int(now + lost_after), endpoint)
end
local next_due = redis.call('ZRANGE', 'd:te', 0, 0, 'WITHSCORES')
return {#page, moved, due, next_due[2] and math.max(0, next_due[2] - now) or -1}
