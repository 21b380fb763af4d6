-- Put people on the list of those who want no texts, as a file has them; who is on it stays as they are.
-- ARGV: for each: the field of the list, the ms since when, or "" for now (what is ahead is now, too), by whom it is known, what is kept of it, sealed,
--       or ""
-- Returns how many came onto it. Made again because its answer was lost, a call finds them there.
local now = now_ms()
local added = 0
for i = 1, #ARGV, 4 do
  local field, at = ARGV[i], math.min(tonumber(ARGV[i + 1]) or now, now)
  local before = redis.call('HGET', 'd:no', field) or ''
  local wanted = math.max(
    tonumber(string.match(before, '^%+(%d+)') or 0), tonumber(redis.call('GET', 'd:ni:' .. field) or 0)
  )
  if not string.find(before, '^%d') and wanted <= at then
    redis.call('HSET', 'd:no', field, int(at) .. ' ' .. ARGV[i + 2] .. (ARGV[i + 3] ~= '' and ' ' .. ARGV[i + 3] or ''))
    added = added + 1
  end
end
return added
