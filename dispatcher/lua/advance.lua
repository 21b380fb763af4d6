-- Write what became of jobs.
-- ARGV: ms to keep jobs, ms that a receipt is waited for, then for each job: id, guard, state, detail, reason to wait or "",
--       ms to wait, "1" where it waits in its line, "outcome ref" of the try or "", ms that its code lives from now or "",
--       the hash that its receipt is found by or "", ms until it is asked for or "", the account that this is told of or
--       "" for the one that has it, the account that it goes on to or "", ms after which it goes on from there without
--       a receipt or 0, n, and n pairs of field and value to set
-- The guard is the token of the claim, or "=<state>" the job must be in.
-- Returns for each job the state it is in now, or "" where it was refused.
--
-- An outcome under an older token changes nothing, but for one thing: news that the provider took it, or answered, still
-- lifts an `unknown`; and that it was taken keeps a job that waits to be tried again from being tried.
local keep, waited = ARGV[1], ARGV[2]
local now = now_ms()

-- Whether its last claim left it unknown, and not somebody who took it back after that claim's outcome was written.
local function of_claim(job)
  local before
  for state in string.gmatch(job.h, '%d+ (%S+) [^\n]*') do
    if state ~= 'unknown' then before = state end
  end
  return before == 'sending'
end

local function allowed(job, guard, to)
  if string.sub(guard, 1, 1) == '=' then return job.s == string.sub(guard, 2) end
  local good = to == 'sent' or to == 'completed'
  if job.f == guard then
    return job.s == 'sending' or (job.s == 'unknown' and (good or of_claim(job))) or (good and job.s == 'queued')
  end
  return good and (job.s == 'unknown' or job.s == 'queued')
end

-- What a receipt with our own id may have made of a job before the answer to its request is written.
local OVERTAKEN = {sent = true, delivered = true, undelivered = true}

-- Add a try to those that are told of.
local function tried(job, account, try)
  set(job, 't', added(job.v.t, int(now) .. ' ' .. account .. ' ' .. try, MOST_TRIES))
end

-- Write what the answer tells beside the state; made again because its answer was lost, a call writes it once.
local function complete(job, account, try, code_ttl, fields)
  if try ~= '' and string.sub(job.v.t or '', -#try - 1) ~= ' ' .. try then
    tried(job, account, try)
    if code_ttl ~= '' then set(job, 've', now + code_ttl) end
  end
  -- Of a job that moved the hash of a code may be that of the account before.
  for f = 1, #fields, 2 do
    if fields[f] == 'vh' or not job.v[fields[f]] then set(job, fields[f], fields[f + 1]) end
  end
  count_price(job, fields, now)
end

-- Read the moves in ARGV; and the hashes that receipts are found by.
local function read_moves()
  local moves, hashes = {}, {}
  local i = 3
  while i <= #ARGV do
    local one = {
      id = ARGV[i], guard = ARGV[i + 1], to = ARGV[i + 2], detail = ARGV[i + 3], reason = ARGV[i + 4],
      delay = tonumber(ARGV[i + 5]), lined = ARGV[i + 6] == '1', try = ARGV[i + 7], code_ttl = ARGV[i + 8],
      receipt = ARGV[i + 9], look = tonumber(ARGV[i + 10]), account = ARGV[i + 11], goal = ARGV[i + 12],
      watched = tonumber(ARGV[i + 13]), fields = {},
    }
    local pairs_left = tonumber(ARGV[i + 14])
    for f = i + 15, i + 14 + 2 * pairs_left do one.fields[#one.fields + 1] = ARGV[f] end
    i = i + 15 + 2 * pairs_left
    moves[#moves + 1] = one
    if one.receipt ~= '' then hashes[#hashes + 1] = one.receipt end
  end
  return moves, hashes
end

-- Make one move; answers the state the job is in then, "" where it was refused.
local function make(job, one)
  local guard, to, detail, account, fields = one.guard, one.to, one.detail, one.account, one.fields
  if account == '' then account = job.p end
  local next, position
  if one.goal ~= '' then next, position = following(job) end
  local function await()
    if one.receipt ~= '' then expect(job, one.receipt, one.look, waited, now, keep, account) end
  end

  if GOOD[to] and taken_by(job, account) then
    -- Told already, and it moved on since: no news, but for those that find it by its reference from now on.
    if not string.find(job.v.t or '', ' ' .. account .. ' accepted ', 1, true) then tried(job, account, one.try) end
    await()
    return job.s
  end
  if job.f == guard and to == 'sent' and OVERTAKEN[job.s] then
    complete(job, account, one.try, one.code_ttl, fields)
    if job.s == 'sent' then watch(job, one.watched, now, keep) end
    if job.s == 'sent' then await() end
    return job.s
  end
  -- Made again because its answer was lost.
  if job.f == guard and job.s == to then return to end
  if to == 'queued' and job.s == 'queued' and guard == '=queued' then
    -- Not granted: no attempt was spent, so the history tells it once only. Made again, a call finds that it moved on.
    if one.goal == '' or next == one.goal then
      if one.reason == 'quiet_hours' and job.z and job.z <= now + one.delay then
        expire_quiet(job, now, detail, keep)
        return job.s
      end
      if string.sub(job.h, -#detail - 1) ~= ' ' .. detail then note(job, now, detail) end
      if next then go_on(job, next, position, now) end
      park(job, one.reason, now + one.delay, one.lined)
    end
    return 'queued'
  end

  if not allowed(job, guard, to) then return '' end
  local possible = MOVES[job.s] and MOVES[job.s][to]
  if guard == '=unknown' and to == 'failed' and job.i == '1' then
    -- Somebody's word that no try was taken; of one at another account it is known.
    job.i = nil
    set(job, 'i', nil)
  end
  -- It was taken by an account that it had left meanwhile, and comes back.
  if GOOD[to] and possible then hand_over(job, account, now) end
  -- Before it moves: its batch shall not be told to have settled.
  if to == 'sent' and possible then
    set(job, 'w', nil)
    watch(job, one.watched, now, keep)
  end
  job.told = fields
  local state = move(job, to, now, detail, keep)
  if not state then return '' end
  if one.try ~= '' then tried(job, account, one.try) end
  if one.code_ttl ~= '' then set(job, 've', now + one.code_ttl) end
  set_all(job, fields)
  -- That a later try may have been taken is less than that one was.
  if job.i and job.i ~= '1' then set(job, 'i', job.i) end
  if GOOD[state] and not GOOD[to] then set(job, 'e', nil) end
  count_price(job, fields, now)
  if state == 'queued' then
    job.i = job.i or job.v.i
    if next and next == one.goal then go_on(job, next, position, now) end
    wait_again(job, one.reason, now + one.delay, now, keep)
    return job.s
  end
  if state ~= 'sent' then return state end
  await()
  return job.s
end

local answer = {}
local moves, hashes = read_moves()
look_for_early(hashes)
for position, one in ipairs(moves) do
  local job = load(one.id)
  answer[position] = job and make(job, one) or ''
end
return answer
