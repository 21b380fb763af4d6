-- Begin a group, or have one go on elsewhere.
-- ARGV: its name, where: a cursor, '0' for all that are kept, '$' for news only, "1" to go on there though it is there,
--       what its consumers ask for: '' with "1", for what the next one does
-- Returns {'THERE'}, {'MADE', cursor}, {'OTHER', what its consumers ask for}, or {'MISSED', cursor, last trimmed} where
-- some after the cursor are gone.
local name, at, again, filters = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local there = find_group(name)
if there and not again then
  local cursor, trimmed = missed(there)
  if cursor then return {'MISSED', cursor, trimmed} end
  local other = other_filters(name, filters)
  return other and {'OTHER', other} or {'THERE'}
end
local trimmed = redis.call('GET', 'd:et')
if trimmed and at ~= '$' and at ~= '0' and before(at, trimmed) then return {'MISSED', at, trimmed} end
if there then redis.call('XGROUP', 'DESTROY', STREAM, name) end
if at == '0' and trimmed then at = trimmed end
redis.call('XGROUP', 'CREATE', STREAM, name, at, 'MKSTREAM')
redis.call('HDEL', FILTERS, name)
if not again then redis.call('HSET', FILTERS, name, filters) end
local made = find_group(name)
if trimmed and before(made['last-delivered-id'], trimmed) then
  -- The stream is younger than what it once had.
  redis.call('XGROUP', 'SETID', STREAM, name, trimmed)
  return {'MADE', trimmed}
end
return {'MADE', made['last-delivered-id']}
