-- Let jobs of a queue go on that wait for a suspension: a portion of those that wait for anything.
-- ARGV: queue, cursor ("0" to begin with), how many to look at, the operations of which (all where there is none),
--       separated by spaces; "1" where the caller takes one of them, which it executes itself, or "" for all
-- Returns {the next cursor, "0" for no more; the ids}. Those not taken are due, and the clock publishes them.
local queue, most, operations, one = ARGV[1], ARGV[3], ' ' .. ARGV[4] .. ' ', ARGV[5] == '1'
local key, now = 'd:w:' .. queue, now_ms()
local ids = {}
local page = redis.call('ZSCAN', key, ARGV[2], 'COUNT', most)
for i = 1, #page[2], 2 do
  local id, due = page[2][i], tonumber(page[2][i + 1])
  -- What is due is let go already; and of those the caller may have one as well.
  if (one and #ids == 0) or (not one and due > now) then
    local v = redis.call('HMGET', job_key(id), 'w', 'd')
    local waits = v[1] and string.sub(v[1], 1, 10) == 'suspended '
    if waits and ARGV[4] ~= '' then
      waits = string.find(operations, ' ' .. cjson.decode(v[2]).operation .. ' ', 1, true)
    end
    if waits and one then
      redis.call('ZREM', key, id)
      redis.call('ZADD', 'd:o:' .. queue, now, id)
      redis.call('HDEL', job_key(id), 'w')
    elseif waits then
      redis.call('ZADD', key, now, id)
      redis.call('HSET', job_key(id), 'w', 'suspended ' .. int(now))
    end
    if waits then ids[#ids + 1] = id end
  end
end
return {page[1], ids}
