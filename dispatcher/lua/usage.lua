-- What texts use up and cost: budgets, usage, prices. Put after writes.lua. Money is in whole millionths.
--
-- A job has of it:
--   ge  "<millionths> <currency>": its price as it was estimated when it was claimed
--   gb  the budgets that it was counted in: lines of "<key> <millionths, or - where it counts no money> <counter>"
--   gu  lines of "<account> <day> <e estimated, a actual> <millionths> <currency>": where it was counted, and what of its
--       price
-- Beside the jobs:
--   d:bu:<period>  hash: what is used of each counter in a day or month; "! <counter>" and "!! <counter>" where its warning
--                  and its end were told
--   d:u:<day>      hash: "<what> <account> <country> <category> <tenant>" to messages (m), their segments beyond the first
--                  (s), and money by currency, estimated ("e:USD") and actual ("a:USD")
--   d:pr           hash: "<account> <country>" to "<millionths of a segment> <currency>", as its last answer told
--   d:kc           hash: country that nobody is texted in to "<ms> <reason>"

local DAY = 86400000

-- Ms that usage of a day is kept unless the settings say otherwise: then the sweep sees to it.
local USAGE_KEPT = 400 * DAY

-- Year, month and day of the date that is `days` after 1970-01-01, by Howard Hinnant's civil_from_days.
local function date(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1
end

-- Dates that this call wrote, by their day.
local dates = {}

local function date_text(days)
  if not dates[days] then dates[days] = string.format('%04.0f-%02.0f-%02.0f', date(days)) end
  return dates[days]
end

local function today(now)
  return date_text(math.floor(now / DAY))
end

-- Add to a field of a hash that may be over by now: then it does not come again.
local function correct(key, field, by)
  if by ~= 0 and redis.call('EXISTS', key) == 1 then redis.call('HINCRBY', key, field, string.format('%.0f', by)) end
end

-- What this call adds to usage, by day and field.
local used_of = {}

-- Add to a field of a day's usage.
local function use(day, field, by)
  local fields = used_of[day] or {}
  used_of[day] = fields
  fields[field] = (fields[field] or 0) + by
end

-- Add to a field of a day that may be over by now: then it does not come again.
local function correct_use(day, field, by)
  if by ~= 0 and (used_of[day] or redis.call('EXISTS', 'd:u:' .. day) == 1) then use(day, field, by) end
end

local function write_usage()
  for day, fields in pairs(used_of) do
    local key, fresh = 'd:u:' .. day, false
    for field, by in pairs(fields) do
      if redis.call('HINCRBY', key, field, int(by)) == by then fresh = true end
    end
    -- A field that was not there may be the first one.
    if fresh and redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, USAGE_KEPT) end
  end
  used_of = {}
end

-- Read the price among fields: millionths and currency, or nothing.
local function price_of(fields)
  for f = 1, #fields, 2 do
    if fields[f] == 'c' then
      local amount, currency = string.match(fields[f + 1], '^(%d+%.?%d*) ?(.*)$')
      if amount then return math.floor(tonumber(amount) * 1000000 + 0.5), currency end
    end
  end
end

-- Public parts that this call read, by their JSON: jobs of a batch often have the same.
local public_parts = {}

local function public_of(job)
  local text = job.v.d
  public_parts[text] = public_parts[text] or cjson.decode(text)
  return public_parts[text]
end

-- Where usage counts a job: account, country, category, tenant; and its segments, or nil where it is no text.
local function place(job, told)
  local text = told.kind == 'send' or told.kind == 'verify'
  local where = job.p .. ' ' .. (told.country or 'ZZ') .. ' ' .. (told.category or 'transactional') .. ' ' .. (told.tenant or '')
  return where, text and (tonumber(told.segments) or 1) or nil
end

-- What was counted of a job's price until now, at the account where it is; nil for nothing.
local function counted_price(job)
  for line in string.gmatch(job.v.gu or '', '[^\n]+') do
    local account, day, kind, amount, currency = string.match(line, '^(%S+) (%S+) (%a) (%d+) (.*)$')
    if account == job.p then return {day = day, kind = kind, amount = tonumber(amount), currency = currency} end
  end
end

-- Remember what was counted of a job's price at the account where it is.
local function remember_price(job, day, kind, amount, currency)
  local lines = {job.p .. ' ' .. day .. ' ' .. kind .. ' ' .. int(amount) .. ' ' .. currency}
  for line in string.gmatch(job.v.gu or '', '[^\n]+') do
    if string.match(line, '^%S+') ~= job.p then lines[#lines + 1] = line end
  end
  set(job, 'gu', table.concat(lines, '\n'))
end

-- Correct the budgets that a job was counted in by what it costs in truth.
local function correct_budgets(job, amount, currency)
  if not job.v.gb then return end
  local lines, changed = {}, false
  for key, counted, counter in string.gmatch(job.v.gb, '(%S+) (%S+) ([^\n]+)') do
    if counted ~= '-' then
      local own = string.match(counter, '^(%S+)/')
      local new = (currency == '' or currency == own) and amount or 0
      correct(key, counter, new - tonumber(counted))
      counted, changed = string.format('%.0f', new), true
    end
    lines[#lines + 1] = key .. ' ' .. counted .. ' ' .. counter
  end
  if changed then set(job, 'gb', table.concat(lines, '\n')) end
end

-- Prices of a segment that this call wrote.
local last_price = {}

-- Count what a job costs, in place of what was counted before: in usage, in budgets, and for estimates to come.
local function settle_price(job, where, segments, country, was, amount, currency, now)
  -- What names no currency is in that of the account's own prices.
  if currency == '' then currency = string.match(job.v.ge or '', '^%d+ (.*)$') or '' end
  local day = was and was.day or today(now)
  if was then
    correct_use(day, was.kind .. ':' .. was.currency .. ' ' .. where, -was.amount)
    correct_use(day, 'a:' .. currency .. ' ' .. where, amount)
  elseif amount > 0 then
    use(day, 'a:' .. currency .. ' ' .. where, amount)
  end
  remember_price(job, day, 'a', amount, currency)
  if segments then
    local route, each = job.p .. ' ' .. country, math.floor(amount / math.max(segments, 1) + 0.5)
    local told = string.format('%.0f %s', each, currency)
    if last_price[route] ~= told then redis.call('HSET', 'd:pr', route, told) end
    last_price[route] = told
  end
  correct_budgets(job, amount, currency)
end

-- Count a text that the provider took: once, at each account that took it. `fields` are what is written with that.
local function count_taken(job, fields, now)
  if counted_price(job) then return end
  local told = public_of(job)
  local where, segments = place(job, told)
  if not segments then return end
  local day = today(now)
  use(day, 'm ' .. where, 1)
  if segments > 1 then use(day, 's ' .. where, segments - 1) end
  local amount, currency = price_of(fields)
  if amount then
    settle_price(job, where, segments, told.country or 'ZZ', nil, amount, currency, now)
  else
    amount, currency = string.match(job.v.ge or '0 ', '^(%d+) (.*)$')
    if amount ~= '0' then use(day, 'e:' .. currency .. ' ' .. where, amount) end
    remember_price(job, day, 'e', tonumber(amount), currency)
  end
end

-- Count a price that is told of a job; counted before, it changes nothing.
local function count_price(job, fields, now)
  local amount, currency = price_of(fields)
  if not amount then return end
  local was = counted_price(job)
  if was and was.kind == 'a' and was.amount == amount and (currency == '' or was.currency == currency) then return end
  local told = public_of(job)
  local where, segments = place(job, told)
  settle_price(job, where, segments, told.country or 'ZZ', was, amount, currency, now)
end
