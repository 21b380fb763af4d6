-- Show the limits of an account as they are now.
-- ARGV: account
-- Returns JSON: now (ms), shown, buckets {name, most, window, unit, used, next (µs), at_once, rate}, penalty (ms, "" for
-- none) and why, part, leases, concurrency, by_address, breaker {state, since, until, errors, timeouts, of}, and the
-- last five minutes of d:lu:<account>:<minute>.
local account = ARGV[1]
local l = limits_of(account, now_us())
local now = l.now
local function ms(us) return int(math.floor(us / 1000)) end
local told = {now = ms(now), minutes = {}}
for minute = math.floor(now / 60000000) - 4, math.floor(now / 60000000) do
  local stored = redis.call('HGETALL', 'd:lu:' .. account .. ':' .. int(minute))
  for i = 1, #stored, 2 do told.minutes[stored[i]] = (told.minutes[stored[i]] or 0) + tonumber(stored[i + 1]) end
end
if not next(told.minutes) then told.minutes = nil end
if l.v.bs then
  told.breaker = {state = l.v.bs, since = ms(number(l, 'bi')), ['until'] = ms(number(l, 'bu'))}
else
  told.breaker = {state = 'closed'}
end
if l.v.bs or number(l, 'bl') > now - STALE then
  told.breaker.errors, told.breaker.timeouts, told.breaker.of = ended(l)
end
if not l.cf then return cjson.encode(told) end

-- What was drawn in the last window, the part of its first slot that lies in it counted by time.
local function of_late(name, window)
  local width, sum = slot_of(l, name), 0
  local last = math.floor(now / width)
  local slots = window * 1000000 / width
  for slot = last - slots, last + 1 do
    local inside = slot == last - slots and 1 - (now / width - last) or 1
    sum = sum + used(account, name, slot) * inside
  end
  return math.floor(sum)
end

local function show(shown, name)
  local one = l.cf.b[name] or {0, 1, 1, 0, 0, 'requests'}
  local interval, most = bucket(l, shown, false)
  told.buckets = told.buckets or {}
  table.insert(told.buckets, {
    name = shown, most = one[5], window = one[4], unit = one[6], used = of_late(name, math.max(1, one[4])),
    next = math.max(0, earliest(l, shown, 1, false) - now), at_once = most, rate = 1000000 / interval,
  })
end

for name in pairs(l.cf.b) do
  if name ~= 'address' and name ~= 'sender' then show(name, name) end
end
for _, address in ipairs(l.cf.b.address and addresses(l) or {}) do show('address:' .. address, 'address') end
if l.cf.b.sender then show('sender', 'sender') end
if not l.cf.b.all and bucket(l, 'all', false) then show('all', 'all') end
told.shown, told.part, told.concurrency, told.by_address = l.cf.s, part(l), l.cf.c, l.cf.a
if gate(l) > now then
  told.penalty, told.why = ms(gate(l)), number(l, 'pu') > number(l, 'cu') and 'throttled' or 'caution'
end
if l.cf.c then
  told.leases = 0
  local here = addresses(l)
  for _, address in ipairs(l.cf.a and here or {''}) do
    told.leases = told.leases + redis.call('ZCOUNT', lease_key(l, address), '(' .. int(now), '+inf')
  end
end
return cjson.encode(told)
