-- What every script has.

-- Whole numbers as they were written last: mostly it is the moment of the call, again and again.
local texts = {}

-- Lua writes large numbers as 1.7e+12 unless told.
local function int(number)
  local text = texts[number]
  if not text then
    text = string.format('%.0f', number)
    texts[number] = text
  end
  return text
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

