-- Ask for permits: each a moment at which a request may go out, or when to ask again.
-- ARGV: account, its limits (JSON, as limits.lua says), the server's run as the worker knows it ("" for not), "1" where
--       the worker was granted something before, its address, how many requests; for each: its id, "1" in the high lane,
--       what it is ("job", "before" for a read that goes before one, "after" for a question about some), how many jobs,
--       µs ahead that its moment may lie, how many buckets it draws from, and these: bucket, amount
-- Returns for each {1, µs until its moment, that moment, "1" for a probe} or {0, µs until the next comes, "limit" or
-- "breaker", "1" where only its own sender keeps it}.
local account, config, run, granted, address = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
local l = limits_of(account, now_us())
local now, lost = l.now, (granted and not l.cf) or (run ~= '' and l.v.rn and l.v.rn ~= run)
if l.v.cf ~= config then
  put(l, 'cf', config)
  l.cf = cjson.decode(config)
end
if run ~= '' and l.v.rn ~= run then put(l, 'rn', run) end
if lost and (next(l.cf.b) or l.cf.c) then put(l, 'cu', now + CAUTION) end
if l.v.bs == 'open' and number(l, 'bu') <= now then
  put(l, 'bs', 'half_open')
  put(l, 'bi', now)
  emit_breaker(l, 'provider.breaker_half_open')
end
if l.v.pf and part(l) >= 1 then drop(l, 'pf', 'xr') end
if l.cf.a or l.cf.b.address then
  if not l.v['a:' .. address] then
    for field, at in pairs(l.v) do
      local other = string.match(field, '^a:(.+)$')
      if other and tonumber(at) < now - 60 * STALE then drop(l, field, 't:address:' .. other) end
    end
  end
  put(l, 'a:' .. address, now)
end

-- Leases: ended ones go, and those of a clock that went back come along.
local leases, out = l.cf.c and lease_key(l, address)
if leases then
  if l.back > 0 then
    local known = redis.call('ZRANGE', leases, 0, -1, 'WITHSCORES')
    for i = 1, #known, 2 do redis.call('ZADD', leases, int(tonumber(known[i + 1]) - l.back), known[i]) end
  end
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', int(now))
  out = redis.call('ZCARD', leases)
end

local function refuse(delay, reason, own)
  return {'0', int(math.max(1000, math.floor(delay))), reason, own and '1' or ''}
end

-- Whether the breaker keeps a request: µs to wait, or nothing; and whether it would be a probe.
local function kept(id, what, jobs)
  if l.v.bs == 'open' then return number(l, 'bu') - now end
  if not l.v.bs or (what == 'before' and jobs == 1) then return nil, false end
  if l.v.bk and l.v.bk ~= id and number(l, 'bx') > now then return math.min(AGAIN, number(l, 'bx') - now) end
  if what ~= 'job' or jobs > 1 then return AGAIN end
  return nil, true
end

local function full(high)
  if not leases or out + (high and 0 or number(l, 'hw') > now and 1 or 0) < l.cf.c then return false end
  if high then put(l, 'hw', now + 2 * AGAIN) end
  return true
end

local counted = {}

-- Count what is drawn at a moment, in slots of a sixtieth of the bucket's window.
local function count(name, moment, amount)
  local slot = math.floor(moment / slot_of(l, name))
  counted[name] = counted[name] or {}
  counted[name][slot] = (counted[name][slot] or 0) + amount
end

local drawn, barrier = {}, gate(l)

-- Remember how many jobs requests carry. Few are because few were handed out, so one that was full may carry more.
local function carried(high, jobs)
  local field = 'js:' .. (high and 1 or 0)
  local known = tonumber(l.v[field] or 1)
  local fuller = jobs >= 0.75 * known and math.min(l.cf.g, 2 * jobs) or 0.97 * known
  put(l, field, string.format('%.2f', math.max(jobs, fuller)))
end

local function ask(id, high, what, jobs, ahead, draws)
  if what == 'job' then carried(high, jobs) end
  local wait, probe = kept(id, what, jobs)
  if wait then return refuse(wait, 'breaker') end
  if full(high) then return refuse(AGAIN, 'limit') end
  local moment, shared, further = math.max(now, barrier), barrier, 0
  for name, amount in pairs(draws) do
    local at, more = earliest(l, name, amount, high)
    moment, further = math.max(moment, at), math.max(further, more)
    if not sender_key(l, name) then shared = math.max(shared, at) end
  end
  moment = math.ceil(moment)
  local far = now + ahead + further
  if moment > far then return refuse(moment - far, 'limit', shared <= far) end
  for name, amount in pairs(draws) do
    local interval = bucket(l, name, high)
    if interval then
      -- What lies before the moment is not kept for it: whoever comes later finds the bucket as this request does.
      l.tats[name] = math.ceil(math.max(l.tats[name], moment) + amount * interval)
      drawn[name] = true
    end
    local known = string.match(name, '^[^:]+')
    if l.cf.b[known] or name == 'all' then count(known, moment, amount) end
  end
  if leases then
    zadd(leases, int(moment + l.cf.hold), id)
    out = out + 1
    if high then drop(l, 'hw') end
  end
  if probe then
    put(l, 'bk', id)
    put(l, 'bx', moment + l.cf.hold)
  end
  if what == 'job' then
    local words = {int(jobs)}
    for name, amount in pairs(draws) do
      local known = string.match(name, '^[^:]+')
      if l.cf.b[known] then words[#words + 1] = known .. ' ' .. int(amount) end
    end
    local last = table.concat(words, ' ')
    local field = 'dr:' .. (high and 1 or 0)
    if l.v[field] ~= last then put(l, field, last) end
  end
  return {'1', int(moment - now), int(moment), probe and '1' or ''}
end

local answers, at = {}, 7
for i = 1, tonumber(ARGV[6]) do
  local id, high, what, jobs = ARGV[at], ARGV[at + 1] == '1', ARGV[at + 2], tonumber(ARGV[at + 3])
  local draws, last = {}, at + 5 + 2 * tonumber(ARGV[at + 5])
  for j = at + 6, last, 2 do draws[ARGV[j]] = tonumber(ARGV[j + 1]) end
  answers[i] = ask(id, high, what, jobs, tonumber(ARGV[at + 4]), draws)
  at = last + 1
end
for name in pairs(drawn) do
  local at, key = l.tats[name], sender_key(l, name)
  if key then
    redis.call('SET', key, int(at) .. ' ' .. int(now), 'PX', math.ceil((at - now) / 1000) + 1000)
  else
    put(l, 't:' .. name, at)
  end
end
save(l)
write_sets()
if leases and out > 0 then redis.call('PEXPIRE', leases, math.ceil(l.cf.hold / 1000) + 60000) end

-- What was used, for who looks on, and for the day an account without limits is throttled.
local key, longest, words = 'd:lu:' .. account, 60, {}
for name, slots in pairs(counted) do
  if l.cf.b[name] then longest = math.max(longest, l.cf.b[name][4]) end
  for slot, amount in pairs(slots) do
    words[#words + 1] = name .. ' ' .. slot % RING
    words[#words + 1] = int(slot) .. ' ' .. int(amount + used(account, name, slot))
  end
end
if #words > 0 then
  redis.call('HSET', key, unpack(words))
  redis.call('EXPIRE', key, 2 * longest)
end
return answers
