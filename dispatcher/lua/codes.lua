-- What the scripts about verifications share: how a verification stands, and how it ends; put after job.lua.

-- The status of a verification as it is by now. A code that is still to be sent has all its life before it.
local function standing(job, now)
  local v = job.v
  if v.vs ~= 'pending' then return v.vs end
  if job.s == 'failed' or job.s == 'cancelled' then return 'cancelled' end
  if job.s == 'expired' then return 'expired' end
  local waits = job.s == 'queued' or job.s == 'sending'
  return tonumber(v.ve or 0) <= now and not waits and 'expired' or 'pending'
end

-- Count an approval for the prefix of the number, where its codes are watched.
local function count_approval(job, now)
  local key, slice = watched_slice(job, 'a', now)
  if key and redis.call('EXISTS', key) == 1 then redis.call('HINCRBY', key, slice, 1) end
end

-- End a verification: its code is right no more, and need not be sent again.
local function end_code(job, status, now)
  set(job, 'vs', status)
  set(job, 'vx', nil)
  emit('verification.' .. status, job.id, job.n, job.v.cb)
  if status == 'approved' then count_approval(job, now) end
end

-- Take a code back: the job, too, where that is still to be sent.
local function take_back(job, detail, now, keep)
  if job.s == 'queued' then fail(job, 'cancelled', now, detail, 'refused', 'cancelled', keep) end
  if job.s == 'sent' and job.v.w then
    unwatch(job)
    if job.b then look_after(job.b, keep) end
  end
  set(job, 'vh', nil)
  if job.v.vs == 'pending' then end_code(job, 'cancelled', now) end
end

-- The verification that a chain of resends came to.
local function newest(job)
  local one = job
  while one and one.v.vn do
    job, one = one, load(one.v.vn)
  end
  return one or job
end

-- What became of the codes that a provider was asked about: words of "<hash of the code> <mark>", where the mark is "?"
-- until it answers, "n" where it is wrong, "y" where it is right and nobody was told, else the call that was told so.

-- Put another mark to the last of these codes that has one of `marks`; answers whether there is any.
local function mark_check(job, hash, marks, mark)
  local checks, at = {}, nil
  for code, known in string.gmatch(job.v.vl or '', '(%S+) (%S+)') do
    checks[#checks + 1] = {code, known}
    if code == hash and marks[known] then at = #checks end
  end
  if not at then return false end
  checks[at][2] = mark
  for i, one in ipairs(checks) do checks[i] = one[1] .. ' ' .. one[2] end
  set(job, 'vl', table.concat(checks, ' '))
  return true
end

-- How often a provider was asked about this code without an answer.
local function unanswered(job, hash)
  local count = 0
  for code, known in string.gmatch(job.v.vl or '', '(%S+) (%S+)') do
    if code == hash and known == '?' then count = count + 1 end
  end
  return count
end

-- Whether a provider was asked about any other code without an answer.
local function others_unanswered(job, hash)
  for code, known in string.gmatch(job.v.vl or '', '(%S+) (%S+)') do
    if code ~= hash and known == '?' then return true end
  end
  return false
end
