-- Write the event stream anew without what was taken out of it: Redis marks an entry as deleted, and keeps its bytes for
-- as long as any of its hundred neighbours is there, in its files too. A portion at a time, into a copy of the caller's.
-- Groups of consumers belong to the key: they come with it, each with its place and what its consumers have in hand.
-- ARGV: the copy's name, how many entries at most
-- Returns 1 once the copy has taken the stream's place, else 0. Made again, a call goes on, or begins another copy.
local STREAM, copy, most = 'd:e', 'd:ef:' .. ARGV[1], tonumber(ARGV[2])
-- Ms until a copy is gone that nobody brought to its end.
local KEPT = 600000

-- A flat list of names and values as a table.
local function named(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- Make a group of the stream one of the copy: what its consumers are not done with is theirs for as long as it was, and
-- was handed out as often; what was taken out of the stream is nobody's any more.
local function carry_over(group)
  local name, from, page = group.name, '-', nil
  redis.call('XGROUP', 'CREATE', copy, name, group['last-delivered-id'])
  repeat
    page = redis.call('XPENDING', STREAM, name, from, '+', 100)
    for _, one in ipairs(page) do
      local id, consumer, idle, times = unpack(one)
      if redis.call('XRANGE', copy, id, id)[1] then
        redis.call('XCLAIM', copy, name, consumer, 0, id, 'IDLE', idle, 'RETRYCOUNT', times, 'FORCE', 'JUSTID')
      end
      from = '(' .. id
    end
  until #page < 100
end

if redis.call('XLEN', STREAM) == 0 then
  redis.call('DEL', copy)
  return 1
end
local last = redis.call('XREVRANGE', copy, '+', '-', 'COUNT', 1)[1]
local page = redis.call('XRANGE', STREAM, last and '(' .. last[1] or '-', '+', 'COUNT', most)
for _, entry in ipairs(page) do redis.call('XADD', copy, entry[1], unpack(entry[2])) end
redis.call('PEXPIRE', copy, KEPT)
if #page == most then return 0 end

-- Meanwhile the sweep may have trimmed the stream, or somebody else was forgotten: then it is copied once more.
redis.call('XTRIM', copy, 'MINID', redis.call('XRANGE', STREAM, '-', '+', 'COUNT', 1)[1][1])
if redis.call('XLEN', copy) ~= redis.call('XLEN', STREAM) then
  redis.call('DEL', copy)
  return 0
end
-- The next entry comes behind all that there ever were, also should the clock go back.
local ever = named(redis.call('XINFO', 'STREAM', STREAM))['last-generated-id']
last = redis.call('XREVRANGE', copy, '+', '-', 'COUNT', 1)[1][1]
if ever and ever ~= last then redis.call('XDEL', copy, redis.call('XADD', copy, ever, 't', '')) end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', STREAM)) do carry_over(named(group)) end
redis.call('RENAME', copy, STREAM)
redis.call('PERSIST', STREAM)
return 1
