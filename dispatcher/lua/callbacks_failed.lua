-- Say that a callback could not be read: it is found again, or set aside where that was so too often.
-- ARGV: id, "1" where it is its own fault and "" where it is nobody's, times that it may be taken, ms to keep it aside
-- Returns 1 where it was set aside.
local id, key, most, keep = ARGV[1], 'd:cb:' .. ARGV[1], tonumber(ARGV[3]), ARGV[4]
local v = redis.call('HMGET', key, 'a', 'k')
if not v[1] or not redis.call('ZSCORE', 'd:co:' .. v[1], id) then return 0 end
if ARGV[2] == '' then
  redis.call('HINCRBY', key, 'k', -1)
  return 0
end
if tonumber(v[2] or 0) < most then return 0 end
redis.call('ZREM', 'd:co:' .. v[1], id)
redis.call('ZADD', 'd:cx', now_ms(), id)
redis.call('PEXPIRE', key, keep)
redis.call('HINCRBY', 'd:cn', v[1] .. ' aside', 1)
return 1
