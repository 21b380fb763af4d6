-- Take callbacks to be read, counting each before it is touched.
-- ARGV: the ids
-- Returns for each that is there {id, account, ms it came at, the request sealed, times taken before}.
local now, taken, latest = now_ms(), {}, {}
for i = 1, #ARGV do
  local id = ARGV[i]
  local v = redis.call('HMGET', 'd:cb:' .. id, 'a', 't', 'x', 'k')
  local published = v[1] and tonumber(redis.call('ZSCORE', 'd:co:' .. v[1], id))
  if published then
    local queue = v[1] .. '.receipts'
    latest[queue] = math.max(latest[queue] or 0, published)
    redis.call('HINCRBY', 'd:cb:' .. id, 'k', 1)
    taken[#taken + 1] = {id, v[1], v[2], v[3], tonumber(v[4] or 0)}
  end
end

-- As with jobs: by what was taken, and when, it is known what was lost.
for queue, published in pairs(latest) do
  local slot = int(math.floor(now / 10000))
  local known = tonumber(redis.call('HGET', 'd:g:' .. queue, slot) or 0)
  if published > known then redis.call('HSET', 'd:g:' .. queue, slot, int(published)) end
end
return taken
