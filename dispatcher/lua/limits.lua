-- What the scripts share that know of limits: of the workers' requests to one account, over all of them. After base.lua.
--
-- d:lm:<account> is a hash, its moments in µs since 1970 on the server's clock:
--   cf  its limits as its workers set them, JSON: b by bucket {µs between two, at once, of these in the normal lane, s of
--       the window, how many in it, unit}, c requests on the wire at most, a whether that is from each address, br the
--       breaker's {sample, share, timeouts, µs}, hold how many µs a lease lasts, g how many jobs a request
--       may carry, s all of it in words
--   rn  the server's run that it was written under    at  when that was last
--   t:<bucket>  when the bucket is as if nothing had been drawn from it (GCRA's theoretical arrival time)
--   a:<address> when it last asked                    hw  until then one lease is left to the high lane
--   dr:0, dr:1  what a request of the normal, the high lane last drew: "<jobs> <bucket> <amount> ..."
--   js:0, js:1  jobs that such a request carries if it can: twice as many as the last where that was full
--   cu  what was used was forgotten: nothing goes before, and what was there to go at once is taken for used by then
--   ps, pu, pf  a penalty's begin and end, and the part of the rate that may be used afterwards, growing
--   xr  requests a second before it, where what was throttled drew from no limit
--   bs  breaker: "open", "half_open"; bi since when, bu until when, bp its pause in µs
--   br  how the latest jobs ended, a letter each: o answered, e error, t timeout; bl when the last of them did
--   bk, bx  the request that is out as a probe, and until when it is believed to be
-- Beside it:
--   d:ls:<account>:<hash>       "<t> <at>" of a sender of its own
--   d:lc:<account>[:<address>]  requests on the wire, by the µs their lease ends
--   d:lu:<account>              what was used, by slots of time: "<slot> <amount>" in a ring of 64 for each bucket
--   d:lu:<account>:<minute>     how that minute's requests ended: l<n> by time taken, o, e, t jobs, r requests, p throttled

-- µs until somebody asks again, where nobody can say when something is free.
local AGAIN = 250000
local CAUTION = 3000000
-- After a penalty: the rate that is left at least, and by how much of the whole it grows every so many µs.
local LEAST_PART, GROWTH, EVERY = 1 / 16, 1 / 8, 10000000
local LONGEST_PAUSE, STALE = 60000000, 60000000
local RING = 64

local OF_REQUESTS = {all = true, get = true, post = true, delete = true, address = true}

local MOMENTS = {hw = true, cu = true, ps = true, pu = true, bi = true, bu = true, bl = true, bx = true}

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- What is known of an account's limits. A clock that went back takes all moments along.
local function limits_of(account, now)
  local l = {account = account, key = 'd:lm:' .. account, now = now, v = {}, set = {}, gone = {}, tats = {}, rates = {}}
  local stored = redis.call('HGETALL', l.key)
  for i = 1, #stored, 2 do l.v[stored[i]] = stored[i + 1] end
  l.back = math.max(0, tonumber(l.v.at or 0) - now)
  if l.back > 0 then
    for field, value in pairs(l.v) do
      if MOMENTS[field] or string.find(field, '^[ta]:') then
        l.v[field] = int(tonumber(value) - l.back)
        l.set[field] = true
      end
    end
  end
  if l.v.cf then l.cf = cjson.decode(l.v.cf) end
  return l
end

local function number(l, field)
  return tonumber(l.v[field] or 0)
end

local function put(l, field, value)
  l.v[field] = type(value) == 'number' and int(value) or value
  l.set[field], l.gone[field] = true, nil
end

local function drop(l, ...)
  for _, field in ipairs({...}) do
    if l.v[field] then l.v[field], l.set[field], l.gone[field] = nil, nil, true end
  end
end

local function part(l)
  local left = tonumber(l.v.pf or 1)
  return math.min(1, left + math.floor(math.max(0, l.now - number(l, 'pu')) / EVERY) * GROWTH)
end

-- Nothing goes before.
local function gate(l)
  return math.max(number(l, 'pu'), number(l, 'cu'))
end

-- What counts for a bucket, or one of a sender or an address: µs between two, at once, of these in the normal lane.
local function rate(l, name)
  local one, left = l.cf.b[string.match(name, '^[^:]+')], part(l)
  if one then return {one[1] / left, one[2], one[3]} end
  if name == 'all' and l.v.xr and left < 1 then return {1000000 / (tonumber(l.v.xr) * left), 1, 1} end
  return {}
end

-- The same in a lane: µs between two, how many at once at most, and of these in the lane; nothing without a limit.
local function bucket(l, name, high)
  local known = l.rates[name]
  if not known then
    known = rate(l, name)
    l.rates[name] = known
  end
  return known[1], known[2], high and known[2] or known[3]
end

local function sender_key(l, name)
  local hash = string.match(name, '^sender:(.+)$')
  return hash and 'd:ls:' .. l.account .. ':' .. hash
end

-- When a bucket is as if nothing had been drawn from it.
local function tat(l, name, interval, most)
  local at, key = l.tats[name], sender_key(l, name)
  if at then return at end
  if key then
    local known, written = string.match(redis.call('GET', key) or '0 0', '^(%d+) (%d+)$')
    at = tonumber(known) - math.max(0, tonumber(written) - l.now)
  else
    at = number(l, 't:' .. name)
  end
  if l.v.cu then at = math.max(at, number(l, 'cu') + (most - 1) * interval) end
  l.tats[name] = at
  return at
end

local function lease_key(l, address)
  return 'd:lc:' .. l.account .. (l.cf.a and ':' .. address or '')
end

-- µs that a bucket's use is counted over: a sixtieth of its window.
local function slot_of(l, name)
  local one = l.cf.b[name]
  return 1000000 * math.max(1, one and one[4] / 60 or 1)
end

-- What was drawn from a bucket in one slot.
local function used(account, name, slot)
  local told = redis.call('HGET', 'd:lu:' .. account, name .. ' ' .. slot % RING) or ''
  local of, amount = string.match(told, '^(%d+) (%d+)$')
  return tonumber(of) == slot and tonumber(amount) or 0
end

local function emit_provider(l, event, told)
  told.provider = l.account
  redis.call('XADD', 'd:e', '*', 't', event, 'i', l.account, 'j', cjson.encode(told))
end

-- Errors and timeouts among the latest jobs, and how many these are.
local function ended(l)
  local ring = l.v.br or ''
  local _, errors = string.gsub(ring, 'e', '')
  local _, timeouts = string.gsub(ring, 't', '')
  return errors, timeouts, #ring
end

local function emit_breaker(l, event)
  local errors, timeouts, of = ended(l)
  local told = {since = int(math.floor(l.now / 1000)), errors = errors, timeouts = timeouts, of = of}
  if event == 'provider.breaker_open' then told['until'] = int(math.floor(number(l, 'bu') / 1000)) end
  emit_provider(l, event, told)
end

-- Write what changed.
local function save(l)
  local fields, gone = {'at', int(l.now)}, {}
  for field in pairs(l.set) do
    fields[#fields + 1], fields[#fields + 2] = field, l.v[field]
  end
  for field in pairs(l.gone) do gone[#gone + 1] = field end
  redis.call('HSET', l.key, unpack(fields))
  if #gone > 0 then redis.call('HDEL', l.key, unpack(gone)) end
end

-- Addresses that asked of late, or none where that is of no matter.
local function addresses(l)
  local found = {}
  for field, at in pairs(l.v) do
    local address = string.match(field, '^a:(.+)$')
    if address and tonumber(at) > l.now - STALE then found[#found + 1] = address end
  end
  return found
end

-- The earliest moment at which `amount` may be drawn: within what may go at once, or else when so much was left that
-- with it there is no more in any time than burst and rate let through. And µs by which that may be further ahead.
local function earliest(l, name, amount, high)
  local interval, most, mine = bucket(l, name, high)
  if not interval then return l.now, 0 end
  local at = tat(l, name, interval, most)
  if amount > most then return at + (amount - most) * interval, (amount - most) * interval end
  return math.max(at, l.now, gate(l)) - math.max(0, mine - amount) * interval, 0
end

-- How many times `amount` a bucket has within `ahead` µs, and when once.
local function has(l, name, amount, high, ahead)
  local interval, most, mine = bucket(l, name, high)
  if not interval then return math.huge, l.now end
  local at = math.max(tat(l, name, interval, most), l.now, gate(l))
  local fit = math.floor(((l.now + ahead - at) / interval + mine) / amount)
  if fit < 1 and at <= l.now + ahead then fit = 1 end
  return math.max(0, fit), at - math.max(0, mine - amount) * interval
end

-- How many jobs of `account` may be handed to its workers now, as far as its limits, its penalty and its breaker let
-- them be sent within `ahead` ms; `high` for the high lane. And the ms at which more may be, where that is none.
local function room(account, high, ahead, now)
  local l = limits_of(account, now * 1000)
  ahead = ahead * 1000
  local function after(us) return math.max(now + 1, math.ceil(us / 1000)) end
  if not l.cf then return 1000000, now end
  if l.v.bs == 'open' and number(l, 'bu') > l.now then return 0, after(number(l, 'bu')) end
  if l.v.bs then
    local out = l.v.bk and number(l, 'bx') > l.now
    return out and 0 or 1, after(out and math.min(number(l, 'bx'), l.now + AGAIN) or l.now)
  end
  if gate(l) > l.now + ahead then return 0, after(gate(l) - ahead) end
  local most, again, here = 1000000, l.now, addresses(l)
  local words = {}
  for word in string.gmatch(l.v['dr:' .. (high and 1 or 0)] or l.v['dr:0'] or l.v['dr:1'] or '', '%S+') do
    words[#words + 1] = word
  end
  if #words == 0 then
    words[1] = '1'
    for name in pairs(l.cf.b) do words[#words + 1], words[#words + 2] = name, '1' end
  end
  local jobs, together = tonumber(words[1]), math.max(1, tonumber(l.v['js:' .. (high and 1 or 0)] or words[1]))
  local function bound(fit, at)
    most = math.min(most, fit)
    if fit < 1 then again = math.max(again, at - ahead) end
  end
  for i = 2, #words, 2 do
    local name = words[i]
    local amount = OF_REQUESTS[name] and 1 / together or tonumber(words[i + 1]) / jobs
    if name ~= 'address' and name ~= 'sender' then
      bound(has(l, name, amount, high, ahead))
    elseif name == 'address' and #here > 0 then
      local all, first = 0, math.huge
      for _, address in ipairs(here) do
        local fit, at = has(l, 'address:' .. address, amount, high, ahead)
        all, first = all + fit, math.min(first, at)
      end
      bound(all, first)
    end
  end
  if l.v.xr then bound(has(l, 'all', 1 / together, high, ahead)) end
  if l.cf.c then
    local free = 0
    for _, address in ipairs(l.cf.a and #here > 0 and here or {''}) do
      free = free + 2 * l.cf.c - redis.call('ZCOUNT', lease_key(l, address), '(' .. int(l.now), '+inf')
    end
    bound(math.floor(math.max(0, free) * together), l.now + ahead + AGAIN)
  end
  return most, after(again)
end
