-- What a verification must pass before anything is written: put before create.lua for those alone.
-- ARGV[3]: what is asked for, as JSON:
--   resends (a verification that this is a new code for), cooldown (ms between two codes of one verification)
--   never (the code of a refusal that no time lifts) and of (what that is about)
--   guards: code, of (the hash or country that is counted), n and ms (so many codes in any such time), name (of a key)
--   watch: of (the hash of a prefix), n, ms, share (percent: closed where n codes or more of the last ms were sent, and
--     none or a smaller share approved), sealed and shown (the prefix)
--   allowed (counted, and never refused), country, number (masked) and tenant, for events
--
-- Refused, a verification draws from no guard; made again because its answer was lost, a call counts once.

-- Beyond this many a window is counted in SLICES, each counting whole: never more than n in any time, though what left the
-- window by less than a slice counts still. Up to it each code is a moment in a list, and the window exact.
-- Both may be there for one guard, while its setting changes.
local MOMENTS = 200

-- Ms between two events about the same refusal, and for how long one that ceased is remembered.
local TOLD_EVERY, TOLD_KEPT = 60000, 3600000

-- Sum the fields of a hash, of each letter, that are slices of the last `ms`. Answers the sums, and the slices in order.
local function slices(key, ms, now)
  local size, sums, found, old = ms / SLICES, {}, {}, {}
  local first = math.floor((now - ms) / size)
  local stored = redis.call('HGETALL', key)
  for i = 1, #stored, 2 do
    local letter, at = string.match(stored[i], '^(%a)(%d+)$')
    local count = tonumber(stored[i + 1])
    -- Slices of another size, from before the setting changed, may lie in what would be a far future.
    if tonumber(at) < first or tonumber(at) * size > now + ms then
      old[#old + 1] = stored[i]
    else
      sums[letter] = (sums[letter] or 0) + count
      found[#found + 1] = {at = tonumber(at), count = count}
    end
  end
  table.sort(found, function(a, b) return a.at < b.at end)
  return sums, found, old
end

-- Count one in the slice that is now; `old` are those to be forgotten, where somebody looked.
local function add_slice(key, letter, ms, now, old)
  redis.call('HINCRBY', key, letter .. int(math.floor(now / (ms / SLICES))), 1)
  if old and #old > 0 then redis.call('HDEL', key, unpack(old)) end
  redis.call('PEXPIRE', key, int(math.ceil(ms + ms / SLICES)))
end

local function window_key(one)
  local counted = one.n > MOMENTS and 's:' or ':'
  return 'd:vg:' .. one.code .. ':' .. int(one.ms) .. counted .. (one.name and one.name .. ':' or '') .. one.of
end

-- In how many ms a window has room for one more; 0 where it has.
local function full_for(one, now)
  local key = window_key(one)
  if one.n <= MOMENTS then
    local last = redis.call('LINDEX', key, -one.n)
    return last and math.max(0, last + one.ms - now) or 0
  end
  local sums, found, old = slices(key, one.ms, now)
  local used = sums.s or 0
  one.old = old
  for _, slice in ipairs(found) do
    if used < one.n then break end
    used = used - slice.count
    one.wait = math.ceil((slice.at + 1) * one.ms / SLICES + one.ms - now)
  end
  return one.wait or 0
end

local function draw(one, now)
  local key = window_key(one)
  if one.n > MOMENTS then return add_slice(key, 's', one.ms, now, one.old) end
  redis.call('RPUSH', key, int(now))
  redis.call('LTRIM', key, -one.n, -1)
  redis.call('PEXPIRE', key, int(one.ms))
end

-- Close a prefix whose codes nobody types, and tell of it.
local function close_prefix(watch, sent, approved, told, now)
  local closed = {
    prefix = watch.shown, sealed = watch.sealed, country = told.country, sent = sent, approved = approved,
    since = int(now), ['until'] = int(now + watch.ms),
  }
  redis.call('SET', 'd:vx:c:' .. watch.of, cjson.encode(closed), 'PX', int(watch.ms))
  -- Once it is open again, what was sent before says nothing.
  redis.call('DEL', 'd:vc:' .. watch.of)
  redis.call('ZREMRANGEBYSCORE', 'd:vx', '-inf', int(now))
  redis.call('ZADD', 'd:vx', int(now + watch.ms), watch.of)
  if redis.call('PTTL', 'd:vx') < watch.ms then redis.call('PEXPIRE', 'd:vx', int(watch.ms)) end
  closed.id, closed.sealed, closed.since, closed['until'] = watch.of, nil, now, now + watch.ms
  redis.call('XADD', 'd:e', '*', 't', 'prefix.closed', 'i', watch.of, 'j', cjson.encode(closed))
end

-- In how many ms a prefix is open again; 0 where it is.
local function closed_for(watch, told, now)
  local left = redis.call('PTTL', 'd:vx:c:' .. watch.of)
  if left > 0 then return left end
  local sums, _, old = slices('d:vc:' .. watch.of, watch.ms, now)
  local sent, approved = sums.s or 0, sums.a or 0
  watch.old = old
  if sent < watch.n or (approved > 0 and approved * 100 >= watch.share * sent) then return 0 end
  if told.allowed then return 0 end
  close_prefix(watch, sent, approved, told, now)
  return watch.ms
end

-- Tell of a refusal, unless that was told within the last minute: then count it.
local function tell_refusal(told, code, of, name, wait, now)
  local key = 'd:vx:t:' .. code .. ':' .. of
  local times = redis.call('HINCRBY', key, 'n', 1)
  local last = tonumber(redis.call('HGET', key, 'at') or 0)
  redis.call('PEXPIRE', key, TOLD_KEPT)
  if now - last < TOLD_EVERY then return end
  redis.call('HSET', key, 'n', 0, 'at', int(now))
  local document = {
    code = code, country = told.country, number = told.number, tenant = told.tenant, times = times, key = name,
    retry_after = wait >= 0 and math.ceil(wait / 1000) or nil,
  }
  redis.call('XADD', 'd:e', '*', 't', 'verification.refused', 'i', code, 'j', cjson.encode(document))
end

-- Hold the verification `job` against its guards. Answers what the call returns where it is refused: {"REFUSED", code, ms
-- until it would not be or -1, name of the key or ""}, {"GONE"} where there is no such verification to resend,
-- {"OVER", state, status} where that is over for good.
local function refused_by_guard(job, now, keep)
  -- A call that was made before, or what an idempotency key made.
  if not job.own or redis.call('EXISTS', job_key(job.id)) == 1 then return nil end
  local told = cjson.decode(ARGV[3])
  local code, of, name, wait

  local function refuse(by, about, ms, key)
    if not code then code, of, name = by, about, key end
    wait = math.max(wait or 0, ms)
  end

  local old = told.resends and load(told.resends)
  if told.resends then
    if not (old and old.v.vs) then return {'GONE'} end
    local last = newest(old)
    local status = standing(last, now)
    if status == 'approved' or (status == 'cancelled' and last.s ~= 'failed') then return {'OVER', last.s, status} end
    local left = tonumber(created(last)) + told.cooldown - now
    -- Another code was made since the caller looked: that is the one to type.
    if left > 0 or last ~= old then refuse('resend_too_soon', job.number, math.max(left, 0)) end
  end
  if told.never and not told.allowed and not code then code, of, wait = told.never, told.of, -1 end
  if not code then
    local closed = told.watch and closed_for(told.watch, told, now) or 0
    if closed > 0 and not told.allowed then refuse('prefix_closed', told.watch.of, closed) end
    for _, one in ipairs(told.guards) do
      local ms = full_for(one, now)
      if ms > 0 and not told.allowed then
        refuse(one.code, (one.name and one.name .. ':' or '') .. one.of, ms, one.name)
      end
    end
  end
  if code then
    tell_refusal(told, code, of, name, wait, now)
    return {'REFUSED', code, int(wait), name or ''}
  end

  for _, one in ipairs(told.guards) do draw(one, now) end
  if told.watch then add_slice('d:vc:' .. told.watch.of, 's', told.watch.ms, now, told.watch.old) end
  if old then
    take_back(old, 'another code was asked for, ' .. job.id, now, keep)
    set(old, 'vn', job.id)
    note(old, now, 'resent as ' .. job.id)
  end
  return nil
end
