-- Tell notices again that were not delivered, in the order of their subject.
-- ARGV: ms that they wait at most; "<endpoint> <cursor>", the latest first
-- Returns for each "OK", "BEFORE" where it is not on the list any more, "GONE" where its endpoint is.
local waits, now, said = ARGV[1], now_ms(), {}
for i = 2, #ARGV do
  local endpoint, cursor = string.match(ARGV[i], '^(%S+) (%S+)$')
  local key = notice_key(endpoint, cursor)
  local subject, word = redis.call('HGET', key, 's'), 'BEFORE'
  if subject and redis.call('HEXISTS', known_of(endpoint), 'g') == 1 then
    word = 'GONE'
  elseif redis.call('ZREM', 'd:tx', ARGV[i]) == 1 and subject then
    word = 'OK'
    redis.call('HDEL', key, 'y', 'ya', 'r')
    redis.call('HSET', key, 'q', int(now))
    put(endpoint, cursor, subject, now, waits, true)
    touch_endpoint(endpoint, now, waits)
    look_at(endpoint, now, now)
  end
  said[#said + 1] = word
end
return said
