-- Forget the person that jobs are about: what accounts need stays, everything else of their records is erased.
-- ARGV: ms to keep jobs; then for each job its id, and its public part without what may name the person
-- Returns for each "gone"; "before" where it was forgotten before; "sending" where a worker may have it on the wire, so
-- that it stays as it is; else "cancelled" where it was taken back for it, or "forgotten".
--
-- Made again, a call finds what was forgotten. What a worker that has a job in its hands writes of it afterwards goes
-- through `set` in writes.lua, which keeps the person out.
local keep = ARGV[1]
local now = now_ms()

-- Take it out of every list by which somebody would ask or decide about it later; it stays where it is.
local function leave_be(job)
  zrem('d:f:' .. job.p, job.id)
  zrem('d:v', job.id)
  if job.s == 'sent' and job.v.w then
    unwatch(job)
    if job.b then look_after(job.b, keep) end
  end
  if job.v.vs == 'pending' then
    set(job, 'vs', 'cancelled')
    emit('verification.cancelled', job.id, job.n, job.v.cb)
  end
end

local function forget(job, public)
  leave_be(job)
  set(job, 'd', public)
  set(job, 'fg', int(now))
  local fields = {}
  for field, value in pairs(job.v) do fields[field] = value end
  for field, value in pairs(fields) do set(job, field, value) end
  note(job, now, 'the person was forgotten')
end

local answer = {}
for i = 2, #ARGV, 2 do
  local job, word = load(ARGV[i]), 'forgotten'
  if not job then
    word = 'gone'
  elseif job.v.fg then
    word = 'before'
  else
    if job.s == 'queued' then
      fail(job, 'cancelled', now, 'taken back, since the person is forgotten', 'refused', 'forgotten', keep)
      word = 'cancelled'
    end
    if job.s == 'sending' then word = 'sending' else forget(job, ARGV[i + 1]) end
  end
  answer[#answer + 1] = word
end
return answer
