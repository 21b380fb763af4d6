-- Hand events of a group to one of its consumers: its own that it was not done with first, then those of one that fell
-- silent, then new ones. What was handed out before comes alone, so that it counts for nothing else what becomes of it.
-- A repeated call is handed what the one before was.
-- ARGV: the group, the consumer, how many new ones at most, ms after which a consumer is silent, "1" to tidy up, what it
--       asks for, then those that it is done with
-- Returns {'NONE'} where there is no such group, {'MISSED', cursor, last trimmed}, {'OTHER', what its consumers ask for},
-- or {'OK', the cursor of the group, {id of what is given up, ...}, {{id, fields, times handed out}, ...}}.
local name, consumer, most, take_over, tidy = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
-- Ms after which a consumer that holds nothing is forgotten.
local FORGOTTEN = 86400000

local group = find_group(name)
if not group then return {'NONE'} end
for i = 7, #ARGV do redis.call('XACK', STREAM, name, ARGV[i]) end
local cursor, trimmed, given_up = missed(group)
if cursor then return {'MISSED', cursor, trimmed} end
local other = other_filters(name, ARGV[6])
if other then return {'OTHER', other} end
for _, id in ipairs(given_up) do redis.call('XACK', STREAM, name, id) end

if tidy then
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', STREAM, name)) do
    local one = named(flat)
    if one.pending == 0 and one.idle > FORGOTTEN then redis.call('XGROUP', 'DELCONSUMER', STREAM, name, one.name) end
  end
end

-- The first of those that are pending, of one consumer or of all that were left alone for so long, that may go out.
local function again(idle, whose)
  local page, from = nil, '-'
  repeat
    if whose then
      page = redis.call('XPENDING', STREAM, name, from, '+', 100, whose)
    else
      page = redis.call('XPENDING', STREAM, name, 'IDLE', idle, from, '+', 100)
    end
    for _, one in ipairs(page) do
      if one[3] >= pause_after(one[4], take_over) then
        local entry = redis.call('XCLAIM', STREAM, name, consumer, 0, one[1])[1]
        if entry then return {entry[1], entry[2], one[4] + 1} end
        -- Erased since, with the person it was about.
        redis.call('XACK', STREAM, name, one[1])
      end
      from = '(' .. one[1]
    end
  until #page < 100
end

local rows = {again(0, consumer) or again(int(take_over))}
if not rows[1] then
  local read = redis.call('XREADGROUP', 'GROUP', name, consumer, 'COUNT', most, 'STREAMS', STREAM, '>')
  -- fakeredis answers one stream where others answer a list of streams.
  local stream = read and (type(read[1]) == 'table' and read[1] or read) or {}
  for _, entry in ipairs(stream[2] or {}) do
    rows[#rows + 1] = {entry[1], entry[2], 1}
    group['last-delivered-id'] = entry[1]
  end
end
return {'OK', group['last-delivered-id'], given_up, rows}
