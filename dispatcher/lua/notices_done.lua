-- Write what came of telling a notice.
-- ARGV: endpoint, token of who told it, cursor, what came of it (delivered; again; failed: it is not told again, and the
--       endpoint failed; refused: it is not told again; gone: nothing is told there any more), words, ms until it is told
--       again, ms before which nothing is told there, ms that notices wait at most, ms that is kept what was not
--       delivered, ms after which a notice is given up
-- Returns "BEFORE" where that is known, or another tells it by now, else "OK".
local endpoint, token, cursor, outcome, words = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local again, not_before, waits, kept = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local old = tonumber(ARGV[10])
local now, known, key = now_ms(), known_of(endpoint), notice_key(endpoint, cursor)
local subject, came = unpack(redis.call('HMGET', key, 's', 'q'))
if not subject or redis.call('HEXISTS', key, 'y') == 1 then return 'BEFORE' end
-- That it was delivered is so, whoever has it by now.
if outcome ~= 'delivered' and held(endpoint) ~= token then return 'BEFORE' end
touch_endpoint(endpoint, now, waits)
-- One that waited long behind another of its subject would be gone by itself before its last try, without a word.
if outcome == 'again' and now + again > tonumber(came) + old then outcome = 'failed' end

if outcome == 'delivered' then
  take_out(endpoint, cursor, subject, now)
  redis.call('DEL', key)
  redis.call('HINCRBY', known, 'ok', 1)
  redis.call('HSET', known, 'ol', int(now))
  local v = redis.call('HMGET', known, 'pp', 'fs')
  if redis.call('HDEL', known, 'f', 'fs', 'nb', 'p', 'pp') > 0 and v[1] then
    tell('resumed', endpoint, {since = tonumber(v[2] or now)})
  end
  return 'OK'
end

redis.call('HSET', known, 'w', words, 'wa', int(now))
if outcome == 'again' then
  redis.call('HINCRBY', key, 'r', 1)
  redis.call('HSET', key, 'w', words)
  redis.call('PEXPIRE', key, waits)
  redis.call('ZADD', 'd:tw:' .. endpoint, int(now + again), subject)
else
  take_out(endpoint, cursor, subject, now)
  set_aside(endpoint, cursor, words, now, kept)
  if outcome ~= 'gone' then tell_failed(endpoint, words, now) end
end
if outcome == 'refused' then return 'OK' end
if outcome == 'gone' then
  if redis.call('HSETNX', known, 'g', int(now)) == 1 then tell('gone', endpoint, {error = words}) end
  return 'OK'
end

local failures = redis.call('HINCRBY', known, 'f', 1)
redis.call('HSETNX', known, 'fs', int(now))
local v = redis.call('HMGET', known, 'fs', 'p', 'pp', 'nb')
local since, paused_until, pause = tonumber(v[1]), tonumber(v[2] or 0), tonumber(v[3])
local slower = failures < SLOW and 0 or STEP * 2 ^ math.min(failures - SLOW, DOUBLED)
not_before = math.max(tonumber(v[4] or 0), now + slower, now + not_before)
if not_before > now then redis.call('HSET', known, 'nb', int(not_before)) end
-- What was on its way before it was paused says nothing new.
if failures < MOST_FAILURES or now - since < FAILING or paused_until > now then return 'OK' end
local first = not pause
pause = first and FIRST_PAUSE or math.min(2 * pause, LONGEST_PAUSE)
redis.call('HSET', known, 'pp', int(pause), 'p', int(now + pause))
if first then
  local told = {since = since, failures = failures, error = words}
  told['until'] = now + pause
  tell('paused', endpoint, told)
end
return 'OK'
