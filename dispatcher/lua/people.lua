-- Take in what a person said, or a provider said of them: a text, that they want no more texts, or want them again, or
-- ask for help. With one of these words in it a text is both.
-- ARGV: what tells this from anything else that was said, or ""; ms to remember that; the text sealed, or "";
--       "out", "in", "help" or ""; the hash of their number; ms they said it at, or "" for now; by whom we know it; that,
--       sealed; "1" where the first is an id of the provider's; the callback that it came with, or ""; how many answers
--       to this word the number gets in an hour, 0 for none; the account that says so itself, or ""; "refused" where that
--       refused a text for it, "noted" where that was not for anything the person said, else "";
--       then pairs: the field of the list that it is about ("<number>", or "<number> <scope>"), and with "out" what is
--       kept of it, sealed, or "", with "in" by whom alone it is taken off, or ""
-- Returns {1 where it is new, else 0; 1 where the list of those who want no texts changed, else 0; 1 where it is to be
-- answered, else 0}. Who reads the same callback again is told of an answer again: perhaps it was not written yet.
local once, remembered, text, verdict, number, said, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local callback, most, account, refused = ARGV[10], tonumber(ARGV[11]), ARGV[12], ARGV[13]
-- For how many ms it is remembered at least that somebody wants texts again: a word of before, read later, or in a file,
-- changes nothing. As long as a callback may be set aside, too.
local LATE = math.max(86400000, tonumber(remembered))
local HOUR = 3600000
local now = now_ms()
local at = tonumber(said) or now

-- Since when a field is on the list, 0 where it is not, and by whom we know it; then when it was last taken off it.
local function standing(field)
  local told = redis.call('HGET', 'd:no', field) or ''
  local since, who = string.match(told, '^(%d+) (%S+)')
  local off = tonumber(string.match(told, '^%+(%d+)') or 0)
  return tonumber(since or 0), who, math.max(off, tonumber(redis.call('GET', 'd:ni:' .. field) or 0))
end

local function put_on(field, kept)
  local since, _, off = standing(field)
  if off > at then return false end
  -- What a provider refuses says no more than that they are on it.
  if at > since and (since == 0 or refused == '') then redis.call('HSET', 'd:no', field, int(at) .. ' ' .. by .. (kept ~= '' and ' ' .. kept or '')) end
  return since == 0
end

local function take_off(field, only)
  local since, who, off = standing(field)
  if since > at or (only ~= '' and since > 0 and who ~= only) then return false end
  if at > off then redis.call('SET', 'd:ni:' .. field, int(at), 'PX', int(LATE)) end
  if field == number and redis.call('HEXISTS', 'd:nb', number) == 1 then
    redis.call('HSET', 'd:no', number, '+' .. int(math.max(at, off)))
  else
    redis.call('HDEL', 'd:no', field)
  end
  return since > 0
end

-- Whether this account's refusal says nothing new: it blocked them before they wanted texts again, and still does.
local function known_block()
  local blocks = blocks_of(number)
  return blocks[account] and string.sub(redis.call('HGET', 'd:no', number) or '', 1, 1) == '+'
end

local function listed()
  local changed = false
  for i = 14, #ARGV, 2 do
    local done
    if verdict == 'out' then done = put_on(ARGV[i], ARGV[i + 1]) else done = take_off(ARGV[i], ARGV[i + 1]) end
    changed = done or changed
  end
  return changed
end

local function tell()
  local event = {'t', verdict == 'out' and 'optout.added' or 'optout.removed', 'i', number, 'x', ARGV[8]}
  local names = {}
  for name in pairs(verdict == 'in' and blocks_of(number) or {}) do names[#names + 1] = name end
  if #names > 0 then
    table.sort(names)
    event[#event + 1] = 'k'
    event[#event + 1] = table.concat(names, ' ')
  end
  redis.call('XADD', 'd:e', '*', unpack(event))
end

-- Whether there is room for another answer in this hour.
local function answered()
  if most == 0 then return false end
  local key = 'd:nt:' .. verdict .. ':' .. number
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('PEXPIRE', key, HOUR) end
  return count <= most
end

local before = once ~= '' and redis.call('GET', 'd:cd:' .. once)
if before and callback ~= '' and before == callback then return {0, 0, 1} end
-- Without an id a second stop may look like the first, with a start between them: they are left alone then.
if before and (verdict ~= 'out' or ARGV[9] == '1') then return {0, 0, 0} end
if once ~= '' then redis.call('SET', 'd:cd:' .. once, '1', 'PX', remembered) end
if text ~= '' and not before then redis.call('XADD', 'd:e', '*', 't', 'inbound.text', 'i', once, 'x', text) end
local new = before and 0 or 1
if verdict == '' or number == '' then return {new, 0, 0} end
if refused ~= '' and known_block() then return {0, 0, 0} end
if account ~= '' then
  if verdict == 'out' then block(number, account, at) else unblock(number, account) end
end
local changed = verdict ~= 'help' and refused ~= 'noted' and listed()
if changed then tell() end
if not (changed or verdict == 'help') or not answered() then return {new, changed and 1 or 0, 0} end
if once ~= '' then redis.call('SET', 'd:cd:' .. once, callback, 'PX', remembered) end
return {new, changed and 1 or 0, 1}
