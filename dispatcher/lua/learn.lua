-- Learn how requests that had a permit ended: leases go back, and penalty and breaker are told.
-- ARGV: account, its limits (JSON, as limits.lua says), its worker's address; for each request: its permit's id and
--       moment, how its jobs ended (a letter each: o answered, e error, t timeout; none for what says nothing), µs until
--       it may be asked again ("" where it was not throttled), "1" where it drew from a limit, n of the time it took (""
--       for none)
-- Returns how many these were.
local account, address = ARGV[1], ARGV[3]
local l = limits_of(account, now_us())
l.cf = cjson.decode(ARGV[2])
local now, sample, share, timeout_share, pause = l.now, unpack(l.cf.br)
local LEAST_USED = 10
local minute = 'd:lu:' .. account .. ':' .. int(math.floor(now / 60000000))

-- Requests a second in those of the last ten seconds that had any; who sends little is not held to that.
local function used_lately()
  local requests, seconds = 0, 0
  for second = math.floor(now / 1000000) - 10, math.floor(now / 1000000) do
    local amount = used(account, 'all', second)
    if amount > 0 then requests, seconds = requests + amount, seconds + 1 end
  end
  return math.max(LEAST_USED, requests / math.max(1, seconds))
end

local function throttled(moment, us, limited)
  -- Those that had their permit before it began tell the same story.
  if moment >= number(l, 'pu') then
    local left = part(l)
    put(l, 'pf', tostring(math.max(LEAST_PART, left / 2)))
    put(l, 'ps', now)
    if not limited and not l.v.xr then put(l, 'xr', tostring(used_lately())) end
    put(l, 'pu', now + us)
    emit_provider(l, 'provider.throttled', {
      since = int(math.floor(now / 1000)), ['until'] = int(math.floor((now + us) / 1000)), factor = tonumber(l.v.pf),
    })
  end
  put(l, 'pu', math.max(number(l, 'pu'), now + us))
end

local function open(wait)
  put(l, 'bs', 'open')
  put(l, 'bi', now)
  put(l, 'bp', wait)
  put(l, 'bu', now + wait)
  emit_breaker(l, 'provider.breaker_open')
end

local function breaker(letters, probe)
  if l.v.bs then
    -- What was on its way when it opened says nothing new.
    if not probe or l.v.bs ~= 'half_open' then return end
    if string.find(letters, '[et]') then
      open(math.min(LONGEST_PAUSE, 2 * number(l, 'bp')))
    elseif string.find(letters, 'o') then
      emit_breaker(l, 'provider.breaker_closed')
      drop(l, 'bs', 'bi', 'bu', 'bp', 'br', 'bl')
    end
    return
  end
  local known = number(l, 'bl') > now - STALE and l.v.br or ''
  put(l, 'br', string.sub(known .. letters, -sample))
  put(l, 'bl', now)
  local errors, timeouts, of = ended(l)
  if of >= sample and (errors + timeouts >= share * of or timeouts >= timeout_share * of) then open(pause) end
end

local counts = {r = 0}
local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

for i = 4, #ARGV, 6 do
  local id, letters = ARGV[i], ARGV[i + 2]
  if l.cf.c then zrem(lease_key(l, address), id) end
  local probe = l.v.bk == id
  if probe then drop(l, 'bk', 'bx') end
  if ARGV[i + 3] ~= '' then
    throttled(tonumber(ARGV[i + 1]), tonumber(ARGV[i + 3]), ARGV[i + 4] ~= '')
    count('p')
  end
  if letters ~= '' then breaker(letters, probe) end
  for letter in string.gmatch(letters, '.') do count(letter) end
  if ARGV[i + 5] ~= '' then
    count('r')
    count('l' .. ARGV[i + 5])
  end
end
save(l)
for name, amount in pairs(counts) do
  if amount > 0 then redis.call('HINCRBY', minute, name, amount) end
end
redis.call('EXPIRE', minute, 600)
return (#ARGV - 3) / 6
