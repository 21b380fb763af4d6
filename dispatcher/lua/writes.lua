-- What a call writes at its end: each sorted set and each job once, however many jobs the call is about. Put before all
-- else. A command costs far more than one more member of it.
--
-- Who reads a sorted set, or a counter, that this call may have changed calls `write_all` (job.lua) first. Jobs are read
-- from here, and so as they are by now.

-- Members of one command at most: Lua hands over no more than some thousand arguments.
local MOST_MEMBERS = 500

-- By key: members to their scores, false for those that leave.
local sets = {}

local function change_set(key, member, score)
  local set = sets[key]
  if not set then
    set = {}
    sets[key] = set
  end
  set[member] = score
end

local function zadd(key, score, member)
  change_set(key, member, score)
end

local function zrem(key, member)
  change_set(key, member, false)
end

-- Give a command to a key for all of `words`, a number of `each` belonging together; answers the sum of the answers.
local function in_portions(command, key, words, each)
  local sum = 0
  for first = 1, #words, MOST_MEMBERS * each do
    sum = sum + redis.call(command, key, unpack(words, first, math.min(#words, first + MOST_MEMBERS * each - 1)))
  end
  return sum
end

-- Take out of the sorted sets what leaves them; answers how many members left each. What a call writes begins with this:
-- a Redis that is full takes it, since it frees memory, and then takes the rest of the call, too.
local function leave_sets()
  local left = {}
  for key, set in pairs(sets) do
    local go = {}
    for member, score in pairs(set) do
      if not score then go[#go + 1] = member end
    end
    left[key] = in_portions('ZREM', key, go, 1)
  end
  return left
end

-- Put into the sorted sets what comes to them.
local function join_sets()
  for key, set in pairs(sets) do
    local come = {}
    for member, score in pairs(set) do
      if score then
        come[#come + 1] = score
        come[#come + 1] = member
      end
    end
    in_portions('ZADD', key, come, 2)
  end
  sets = {}
end

local function write_sets()
  leave_sets()
  join_sets()
end

-- Jobs by id: their fields as they are by now, and which of these this call changed; false for none.
local jobs = {}

local function read_job(id)
  local one = jobs[id]
  if one == nil then
    local stored, v = redis.call('HGETALL', 'd:j:' .. id), {}
    for i = 1, #stored, 2 do v[stored[i]] = stored[i + 1] end
    one = #stored > 0 and {v = v, changed = {}}
    jobs[id] = one
  end
  return one
end

-- What stays of a job whose person was forgotten, by the first word of a field: nothing else is written into it either,
-- by a worker that had it in its hands, or late news.
local STAYS = {}
for _, field in ipairs({
  'd', 'p', 'l', 's', 'n', 'h', 'z', 'w', 'b', 'a', 'tn', 'u', 'k', 'f', 'o', 'i', 'rt', 'q', 't', 'c', 'e', 'y', 'yp',
  'ik', 'vs', 'vt', 've', 'vn', 'rd', 'ge', 'gb', 'gu', 'kp', 'fg',
}) do STAYS[field] = true end

-- A field of such a job without anybody's words: of a failure its kind and code, of a try no reference, of each line of
-- the history what stands before its first colon.
local function without_person(field, value)
  if field == 'x' then return '' end
  if not value or not STAYS[string.match(field, '^%S+')] then return nil end
  if field == 'e' then
    local failure = cjson.decode(value)
    return cjson.encode({kind = failure.kind, code = failure.code or '', message = ''})
  end
  if field == 't' then return (string.gsub(value, '(%d+ %S+ %S+) [^\n]*', '%1 ')) end
  if field == 'h' then return (string.gsub(value, ':[^\n]*', '')) end
  return value
end

-- Set a field of a job, or erase it where there is no value.
local function set(job, field, value)
  local v = job.v
  if v.fg then value = without_person(field, value) end
  if v[field] == value then return end
  v[field] = type(value) == 'number' and int(value) or value
  jobs[job.id].changed[field] = true
end

-- Set fields of a job that are given in turn with their values.
local function set_all(job, fields)
  for f = 1, #fields, 2 do set(job, fields[f], fields[f + 1]) end
end

-- Keep a job for `ms`, or until further notice.
local function keep_job(job, ms)
  jobs[job.id].keep = ms or false
end

local function write_job(key, one)
  local come, go = {}, {}
  for field in pairs(one.changed) do
    local value = one.v[field]
    if value then
      come[#come + 1] = field
      come[#come + 1] = value
    else
      go[#go + 1] = field
    end
  end
  if #come > 0 then redis.call('HSET', key, unpack(come)) end
  if #go > 0 then redis.call('HDEL', key, unpack(go)) end
  if one.keep then
    redis.call('PEXPIRE', key, one.keep)
  elseif one.keep == false then
    redis.call('PERSIST', key)
  end
  one.changed, one.keep = {}, nil
end

local function write_jobs()
  for id, one in pairs(jobs) do
    if one and (next(one.changed) or one.keep ~= nil) then write_job('d:j:' .. id, one) end
  end
end
