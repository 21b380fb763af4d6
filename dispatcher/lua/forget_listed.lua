-- Erase the sealed number that stands beside entries of the list of those who want no texts; the entries stay.
-- ARGV: fields of the list
-- Returns how many had one.
local erased = 0
for i = 1, #ARGV do
  local kept = string.match(redis.call('HGET', 'd:no', ARGV[i]) or '', '^(%d+ %S+) ')
  if kept then
    redis.call('HSET', 'd:no', ARGV[i], kept)
    erased = erased + 1
  end
end
return erased
