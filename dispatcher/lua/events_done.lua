-- Say that a consumer is done with events of its group, and that it is still at others, or gives them back.
-- ARGV: the group, the consumer, ms that the others count as left alone: 0 to keep them, how many it is done with, these,
--       the others
-- Returns {how many were pending, {those of the others that are still its own}}.
local name, consumer, idle, done = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if not find_group(name) then return {0, {}} end
local count, kept = 0, {}
for i = 5, 4 + done do count = count + redis.call('XACK', STREAM, name, ARGV[i]) end
for i = 5 + done, #ARGV do
  if redis.call('XPENDING', STREAM, name, ARGV[i], ARGV[i], 1, consumer)[1] then
    redis.call('XCLAIM', STREAM, name, consumer, 0, ARGV[i], 'IDLE', idle, 'JUSTID')
    kept[#kept + 1] = ARGV[i]
  end
end
return {count, kept}
