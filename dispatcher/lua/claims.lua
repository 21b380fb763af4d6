-- What `claim` and `reclaim` share: the texts they are about, and the budgets that these count in; put after job.lua.

-- The key of the day or month that is now, and the day it ends at.
local function period(per, now)
  local days = math.floor(now / DAY)
  if per == 'day' then return 'd:bu:' .. date_text(days), days + 1 end
  local _, _, day = date(days)
  local next_month = days - day + 32
  local _, _, over = date(next_month)
  return 'd:bu:' .. string.sub(date_text(days), 1, 7), next_month - over + 1
end

-- Counters that this call looked at: what was used of each before, and what is added to it.
local budgets = {}

local function budget_of(counter, now)
  local one = budgets[counter.name]
  if not one then
    one = {added = 0}
    one.key, one.ends = period(counter.per, now)
    one.used = tonumber(redis.call('HGET', one.key, counter.name) or 0)
    budgets[counter.name] = one
  end
  return one
end

-- Tell of a budget once in its period.
local function tell_budget(kind, mark, counter, one)
  if one[mark] then return end
  one[mark] = true
  if redis.call('HSETNX', one.key, mark .. ' ' .. counter.name, '1') == 0 then return end
  local told = cjson.encode({
    rule = counter.rule, counter = counter.name, unit = counter.unit, cap = int(counter.cap),
    used = int(one.used + one.added), ends = int(one.ends * DAY),
  })
  redis.call('XADD', 'd:e', '*', 't', kind, 'i', counter.name, 'j', told)
end

-- The counters among `mine` that a job was not counted in yet, each with what it adds there; and those it was.
local function uncounted(job, mine, text)
  if #mine == 0 then return {} end
  local counted = job.v.gb or ''
  local found, lines = {counted = counted}, '\n' .. counted .. '\n'
  for _, counter in ipairs(mine) do
    if not string.find(lines, ' ' .. counter.name .. '\n', 1, true) then
      local unit, currency = string.match(counter.unit, '^(%S+) ?(.*)$')
      local amount = unit == 'messages' and 1 or unit == 'segments' and text.segments or 0
      if unit == 'money' and (text.currency == currency or text.currency == '') then amount = text.estimate end
      found[#found + 1] = {counter = counter, amount = amount, money = unit == 'money'}
    end
  end
  return found
end

-- The first of these counters that has no room, and the day it ends at; its end is told.
local function used_up(adds, now)
  for _, add in ipairs(adds) do
    local counter, one = add.counter, budget_of(add.counter, now)
    local used = one.used + one.added
    if used >= counter.cap or used + add.amount > counter.cap then
      tell_budget('budget.exceeded', '!!', counter, one)
      return counter, one.ends
    end
  end
end

-- Count a job in budgets; answers the lines that say so, nil where there are none.
local function spend(adds, now)
  if #adds == 0 then return nil end
  local lines = {adds.counted ~= '' and adds.counted or nil}
  for _, add in ipairs(adds) do
    local counter, one = add.counter, budget_of(add.counter, now)
    one.added, one.spent = one.added + add.amount, true
    if one.used + one.added >= counter.warn then tell_budget('budget.warning', '!', counter, one) end
    lines[#lines + 1] = one.key .. ' ' .. (add.money and int(add.amount) or '-') .. ' ' .. counter.name
  end
  return table.concat(lines, '\n')
end

-- Write what was counted; a script does so at its end.
local function close_budgets()
  for name, one in pairs(budgets) do
    if one.spent then redis.call('HINCRBY', one.key, name, int(one.added)) end
    if redis.call('PTTL', one.key) == -1 then redis.call('PEXPIREAT', one.key, int((one.ends + 1) * DAY)) end
  end
end

-- Prices of a segment that this call read.
local prices = {}

-- Estimate the price of a text, `each` a segment as its account's settings say, or as that of the last one to its country.
local function estimate(account, text, each)
  if text.segments == 0 then return end
  if each == '' then
    local route = account .. ' ' .. text.country
    prices[route] = prices[route] or redis.call('HGET', 'd:pr', route) or '0 '
    each = prices[route]
  end
  local amount, currency = string.match(each, '^(%d+) (.*)$')
  text.estimate, text.currency = tonumber(amount) * text.segments, currency
end

-- Read the claims in ARGV from `at` on.
local function read_claims(at)
  local counters, claims = {}, {}
  local i = at + 1 + 6 * tonumber(ARGV[at])
  for c = at + 1, i - 1, 6 do
    counters[#counters + 1] = {
      name = ARGV[c], rule = ARGV[c + 1], unit = ARGV[c + 2], per = ARGV[c + 3], cap = tonumber(ARGV[c + 4]),
      warn = tonumber(ARGV[c + 5]),
    }
  end
  while i <= #ARGV do
    local claim = {
      token = ARGV[i], id = ARGV[i + 1], repeated = ARGV[i + 2], number = ARGV[i + 3], each = ARGV[i + 6], mine = {},
      fields = {}, text = {country = ARGV[i + 4], segments = tonumber(ARGV[i + 5]), estimate = 0, currency = ''},
    }
    for index in string.gmatch(ARGV[i + 7], '%d+') do claim.mine[#claim.mine + 1] = counters[tonumber(index)] end
    claim.scopes = ARGV[i + 8]
    local pairs_left = tonumber(ARGV[i + 9])
    for f = i + 10, i + 9 + 2 * pairs_left do claim.fields[#claim.fields + 1] = ARGV[f] end
    claims[#claims + 1] = claim
    i = i + 10 + 2 * pairs_left
  end
  return claims
end

-- Claim a job, and count it.
local function take_claim(job, claim, adds, detail, now, lease, keep)
  local counted, text = spend(adds, now), claim.text
  move(job, 'sending', now, detail, keep)
  -- What was read before an earlier attempt says nothing of this one.
  set(job, 'vb', nil)
  set(job, 'ge', text.estimate > 0 and int(text.estimate) .. ' ' .. text.currency or nil)
  set(job, 'k', nil)
  set(job, 'q', nil)
  if counted then set(job, 'gb', counted) end
  set(job, 'f', claim.token)
  set(job, 'a', job.a + 1)
  set(job, 'o', claim.repeated ~= 'never' and claim.repeated or nil)
  set_all(job, claim.fields)
  zadd('d:l', now + lease, job.id)
end
