-- Take in what providers tell of jobs afterwards, by a receipt or when asked.
-- ARGV: ms to keep jobs, ms that a receipt is waited for, then for each: provider, our job's id or "", the hash of its
--       reference or "", state or "", detail, part, parts, n, and n pairs of field and value to set
-- Returns for each: "moved"; "late" where its job is known and stays as it is; "forgotten" where the person of its job was,
-- whether that moved or not; "early" where no job has that reference yet, so that it waits for one.
local keep, waited = ARGV[1], ARGV[2]
local now = now_ms()
local answer = {}

local i = 3
while i <= #ARGV do
  local provider, own, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local word = {to = ARGV[i + 3], detail = ARGV[i + 4], part = ARGV[i + 5], parts = tonumber(ARGV[i + 6]), fields = {}}
  local pairs_left = tonumber(ARGV[i + 7])
  for f = i + 8, i + 7 + 2 * pairs_left do word.fields[#word.fields + 1] = ARGV[f] end
  i = i + 8 + 2 * pairs_left

  local job = own ~= '' and load(own)
  if not (job and came_to(job, provider)) then
    local id = key ~= '' and redis.call('GET', 'd:y:' .. key)
    job = id and load(id)
  end
  if job then
    local moved = hear(job, word, now, keep, provider)
    -- Known by its reference from now on, as after an answer of its own.
    if moved and word.to == 'sent' then
      local next, _, asked = following(job)
      -- Where its account tells no receipts, none is waited for.
      if next and asked and key ~= '' then watch(job, asked * 1000, now, keep) end
      if key ~= '' then expect(job, key, FIRST_LOOK, waited, now, keep, provider) end
    end
    answer[#answer + 1] = job.v.fg and 'forgotten' or moved and 'moved' or 'late'
  elseif key == '' then
    answer[#answer + 1] = 'late'
  else
    local early = 'd:ye:' .. key
    redis.call('RPUSH', early, cjson.encode(word))
    redis.call('LTRIM', early, -MOST_EARLY, -1)
    redis.call('PEXPIRE', early, waited)
    answer[#answer + 1] = 'early'
  end
end
return answer
