-- What the scripts about groups of consumers share: a group is one of Redis' own on the event stream.
local STREAM = 'd:e'

-- What the consumers of each group ask for, by its name.
local FILTERS = 'd:eg'

-- Times that an event was handed out from which on it waits between two of them: it may be what kills its consumers.
local PATIENCE = 5

-- Ms that it waits at most.
local LONGEST_WAIT = 3600000

local function parts(id)
  local at, number = string.match(id, '^(%d+)%-?(%d*)$')
  return tonumber(at), tonumber(number) or 0
end

-- Whether one id comes before another.
local function before(one, other)
  local at, number = parts(one)
  local other_at, other_number = parts(other)
  if at ~= other_at then return at < other_at end
  return number < other_number
end

-- A flat list of names and values as a table.
local function named(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

local function all_groups()
  local found = {}
  if redis.call('EXISTS', STREAM) == 1 then
    for _, one in ipairs(redis.call('XINFO', 'GROUPS', STREAM)) do found[#found + 1] = named(one) end
  end
  return found
end

local function find_group(name)
  for _, one in ipairs(all_groups()) do
    if one.name == name then return one end
  end
end

-- What the consumers of a group asked for until now, where that is something else; false where it is not.
local function other_filters(name, filters)
  local known = redis.call('HGET', FILTERS, name)
  if not known then redis.call('HSET', FILTERS, name, filters) end
  return known and known ~= filters and known
end

-- What a group was to get and never will, since it was trimmed away: the cursor it is at, or of an event that somebody
-- had in hand; false for nothing. Then the last that was trimmed away. What was handed out often enough is given up.
local function missed(group)
  local trimmed = redis.call('GET', 'd:et')
  if not trimmed then return false, '', {} end
  if before(group['last-delivered-id'], trimmed) then return group['last-delivered-id'], trimmed, {} end
  local given_up, page, from = {}, nil, '-'
  repeat
    page = redis.call('XPENDING', STREAM, group.name, from, trimmed, 100)
    for _, one in ipairs(page) do
      if one[4] < PATIENCE then return one[1], trimmed, {} end
      given_up[#given_up + 1] = one[1]
      from = '(' .. one[1]
    end
  until #page < 100
  return false, trimmed, given_up
end

-- Ms that an event is left alone after it was handed out so many times.
local function pause_after(times, take_over)
  if times < PATIENCE then return 0 end
  return math.min(LONGEST_WAIT, take_over * 2 ^ math.min(times - PATIENCE, 30))
end
