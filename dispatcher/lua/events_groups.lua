-- Look at every group.
-- Returns for each {name, its cursor, unread events or -1 for many, consumers, pending, the first that is unread or '',
-- the first that is pending or '', how many of these were handed out often, "1" where it missed some}.

-- Events that are counted where Redis does not know how many are unread, and how many at a time.
local MOST, PAGE = 10000, 1000

local function count_after(id)
  local count, page = 0, nil
  repeat
    page = redis.call('XRANGE', STREAM, '(' .. id, '+', 'COUNT', PAGE)
    count = count + #page
    if #page > 0 then id = page[#page][1] end
  until #page < PAGE or count >= MOST
  return count < MOST and count or -1
end

local function count_often(name)
  local count, page, from = 0, nil, '-'
  repeat
    page = redis.call('XPENDING', STREAM, name, from, '+', PAGE)
    for _, one in ipairs(page) do
      if one[4] >= PATIENCE then count = count + 1 end
      from = '(' .. one[1]
    end
  until #page < PAGE
  return count
end

local told = {}
for _, one in ipairs(all_groups()) do
  local at, name = one['last-delivered-id'], one.name
  local unread = redis.call('XRANGE', STREAM, '(' .. at, '+', 'COUNT', 1)[1]
  local pending = redis.call('XPENDING', STREAM, name, '-', '+', 1)[1]
  told[#told + 1] = {
    name, at, unread and (tonumber(one.lag or nil) or count_after(at)) or 0, one.consumers, one.pending,
    unread and unread[1] or '', pending and pending[1] or '', count_often(name), missed(one) and '1' or '',
  }
end
return told
