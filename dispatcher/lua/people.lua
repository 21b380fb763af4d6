-- Take in what a person said: a text, or that they want no more texts, or want them again. With one of these words in it
-- a text is both.
-- ARGV: what tells this from anything else that was said, or ""; ms to remember that; the text sealed, or "";
--       "out", "in" or ""; the hash of their number; ms they said it at, or "" for now; by whom we know it; that, sealed;
--       "1" where the first is an id of the provider's
-- Returns {1 where it is new, else 0; 1 where the list of those who want no texts changed, else 0}.
local once, remembered, text, verdict, number, said, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
-- For how long it is remembered that somebody wants texts again: a word of before, read later, changes nothing.
local LATE = 86400000
local now = now_ms()

local function listed()
  local at = tonumber(said) or now
  local since = redis.call('HGET', 'd:no', number)
  local said_out = since and tonumber(string.match(since, '^%d+')) or 0
  local said_in = tonumber(redis.call('GET', 'd:ni:' .. number) or 0)
  if verdict == 'out' then
    if said_in > at then return false end
    if at > said_out then redis.call('HSET', 'd:no', number, int(at) .. ' ' .. by) end
    return not since
  end
  if said_out > at then return false end
  if at > said_in then redis.call('SET', 'd:ni:' .. number, int(at), 'PX', LATE) end
  return redis.call('HDEL', 'd:no', number) == 1
end

local again = once ~= '' and not redis.call('SET', 'd:cd:' .. once, '1', 'NX', 'PX', remembered)
-- Without an id a second stop may look like the first, with a start between them: they are left alone then.
if again and (verdict ~= 'out' or ARGV[9] == '1') then return {0, 0} end
if text ~= '' and not again then redis.call('XADD', 'd:e', '*', 't', 'inbound.text', 'i', once, 'x', text) end
if verdict == '' or number == '' or not listed() then return {again and 0 or 1, 0} end
redis.call('XADD', 'd:e', '*', 't', verdict == 'out' and 'optout.added' or 'optout.removed', 'i', number, 'x', ARGV[8])
return {again and 0 or 1, 1}
