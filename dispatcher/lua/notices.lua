-- What the scripts of notices share: how what consumers are told waits. Put before each of them, after base.lua.
--
-- A notice is one event on its way to one endpoint: a URL without its query, or a Celery task with its queue.
--   d:tc                the last entry of the stream that was moved on; there once anybody is to be told of anything
--   d:tf                hash of the default endpoint: e its id, p patterns of events, since the entry after which it is
--                       told, cb as a job has it
--   d:te                endpoints by the ms at which the next look at them is due: also while a message is out or they
--                       are being told, so that a lost message and a dead worker are found
--   d:ta                endpoints by the ms at which something last came of them
--   d:t:<endpoint>      hash of what is known of one: s what may be shown of it, ok and no how many were delivered and
--                       were not, ol the ms of the last that was; f failures in a row, fs since when, w the words of the
--                       last and wa its ms; nb the ms before which nothing is tried; pp how many ms it is paused for, and
--                       p until when; g the ms at which it said that it is gone; ft the ms of the last event that
--                       something was not delivered; l "<token> <ms>" of who tells it, until then, "-" while a message is
--                       out; ca "<call> <cursor> ..." of the last take
--   d:tw:<endpoint>     subjects by the ms at which the next notice of each is due
--   d:tl:<endpoint>:<subject>  cursors of its notices, the next in front
--   d:tp:<endpoint>     cursors of all notices that wait, by the ms they came at
--   d:tn:<endpoint>:<cursor>   a notice: the fields of its entry in the stream, and cb as its job has it, s its subject,
--                       q the ms it came at, r tries; y why it was not delivered, ya the ms of that
--   d:tx                "<endpoint> <cursor>" of what was not delivered, by the ms of that

-- Failures in a row, over so many ms, after which an endpoint is paused; for how long at first, and at most.
local MOST_FAILURES, FAILING, FIRST_PAUSE, LONGEST_PAUSE = 5, 60000, 60000, 3600000

-- Failures in a row after which it is told by few at a time and more and more slowly; how many ms apart at first, and how
-- often that doubles.
local SLOW, FEW, STEP, DOUBLED = 3, 2, 500, 4

-- Ms from one event that something was not delivered to the next.
local FAILED_EVERY = 3600000

local function known_of(endpoint)
  return 'd:t:' .. endpoint
end

local function notice_key(endpoint, cursor)
  return 'd:tn:' .. endpoint .. ':' .. cursor
end

local function list_key(endpoint, subject)
  return 'd:tl:' .. endpoint .. ':' .. subject
end

-- Whether one entry of the stream comes after another.
local function comes_after(one, other)
  local ms, n = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_n = string.match(other, '^(%d+)-(%d+)$')
  ms, other_ms = tonumber(ms), tonumber(other_ms)
  if ms ~= other_ms then return ms > other_ms end
  return tonumber(n) > tonumber(other_n)
end

local function last_entry()
  local last = redis.call('XREVRANGE', 'd:e', '+', '-', 'COUNT', 1)[1]
  return last and last[1] or '0-0'
end

-- Who has an endpoint in hand, and until when.
local function held(endpoint)
  local token, until_ms = string.match(redis.call('HGET', known_of(endpoint), 'l') or '', '^(%S+) (%d+)$')
  return token, tonumber(until_ms or 0)
end

-- Have an endpoint looked at once something is due there, unless somebody has it in hand, who finds it anyway.
local function look_at(endpoint, due, now)
  local _, until_ms = held(endpoint)
  if until_ms > now then return end
  local v = redis.call('HMGET', known_of(endpoint), 'p', 'nb')
  due = math.max(due, tonumber(v[1] or 0), tonumber(v[2] or 0))
  local known = tonumber(redis.call('ZSCORE', 'd:te', endpoint))
  if not known or known > due then redis.call('ZADD', 'd:te', int(due), endpoint) end
end

-- Tell in the stream what became of an endpoint.
local function tell(event, endpoint, document)
  document.endpoint = redis.call('HGET', known_of(endpoint), 's') or ''
  document.id = endpoint
  redis.call('XADD', 'd:e', '*', 't', 'callback.' .. event, 'i', endpoint, 'j', cjson.encode(document))
end

-- Note that something came of an endpoint, which is known for `kept` ms from then on.
local function touch_endpoint(endpoint, now, kept)
  redis.call('ZADD', 'd:ta', now, endpoint)
  redis.call('PEXPIRE', known_of(endpoint), kept)
end

-- Let a notice wait, behind what its subject has, or in front.
local function put(endpoint, cursor, subject, now, kept, in_front)
  local list = list_key(endpoint, subject)
  redis.call(in_front and 'LPUSH' or 'RPUSH', list, cursor)
  redis.call('ZADD', 'd:tw:' .. endpoint, 'NX', now, subject)
  redis.call('ZADD', 'd:tp:' .. endpoint, now, cursor)
  for _, key in ipairs({list, 'd:tw:' .. endpoint, 'd:tp:' .. endpoint, notice_key(endpoint, cursor)}) do
    redis.call('PEXPIRE', key, kept)
  end
end

-- Take a notice out of what waits; its subject's next is due then. Answers whether it was there.
local function take_out(endpoint, cursor, subject, now)
  local list = list_key(endpoint, subject)
  redis.call('ZREM', 'd:tp:' .. endpoint, cursor)
  if redis.call('LREM', list, 1, cursor) == 0 then return false end
  if redis.call('EXISTS', list) == 1 then
    redis.call('ZADD', 'd:tw:' .. endpoint, now, subject)
  else
    redis.call('ZREM', 'd:tw:' .. endpoint, subject)
  end
  return true
end

-- Put a notice on the list of those that were not delivered, where it stays for `kept` ms.
local function set_aside(endpoint, cursor, why, now, kept)
  local key = notice_key(endpoint, cursor)
  redis.call('HSET', key, 'y', why, 'ya', int(now))
  redis.call('PEXPIRE', key, kept)
  redis.call('ZADD', 'd:tx', now, endpoint .. ' ' .. cursor)
  redis.call('HINCRBY', known_of(endpoint), 'no', 1)
end

local function tell_failed(endpoint, why, now)
  local told = tonumber(redis.call('HGET', known_of(endpoint), 'ft') or 0)
  if told > now - FAILED_EVERY then return end
  redis.call('HSET', known_of(endpoint), 'ft', int(now))
  tell('failed', endpoint, {failed = tonumber(redis.call('HGET', known_of(endpoint), 'no') or 0), error = why})
end

-- Put some of all that waits for an endpoint on that list; answers how many.
local function set_all_aside(endpoint, cursors, why, now, kept)
  for _, cursor in ipairs(cursors) do
    local subject = redis.call('HGET', notice_key(endpoint, cursor), 's')
    redis.call('ZREM', 'd:tp:' .. endpoint, cursor)
    if subject then
      take_out(endpoint, cursor, subject, now)
      set_aside(endpoint, cursor, why, now, kept)
    end
  end
  return #cursors
end
