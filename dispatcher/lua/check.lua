-- Judge a code against a verification, counting the try before comparing.
-- ARGV: name of this call, id, keyed hash of the code, tries allowed
-- Returns {1 where it is right, else 0; the verification's status}, {-1} where there is none, {-2, status} where the
-- provider judges, {-3, id} where another code was sent since, which is asked about instead.
--
-- Made again because its answer was lost, a call gets the same verdict and costs no second try.
local call, hash, allowed, now = ARGV[1], ARGV[3], tonumber(ARGV[4]), now_ms()
local job = load(ARGV[2])
if not (job and job.v.vs) then return {-1} end
local v = job.v
-- The newest may be kept for less long than this one.
local last = newest(job)
if last ~= job then return {-3, last.id} end

local status = standing(job, now)
if status ~= v.vs then end_code(job, status, now) end
if v.vc and string.match(v.vc, '^%S+') == call then return {tonumber(string.match(v.vc, '%S+$')), status} end
-- The provider's yes came after whoever had asked was gone: it is for who asks with the same code again.
if status == 'approved' and mark_check(job, hash, {y = true}, call) then
  set(job, 'vc', call .. ' 1')
  return {1, status}
end
if status ~= 'pending' then return {0, status} end

-- Of a job that moved on to an account which makes or judges the code itself the hash is empty.
local known = v.vh and v.vh ~= ''
-- No code can be on the phone yet: there is nothing to judge, and so nothing that would cost a try.
if known and job.s == 'queued' and not job.i then return {0, status} end
if not known and not (job.s == 'sent' or job.s == 'delivered' or job.s == 'undelivered') then return {0, status} end

local tries, verdict = tonumber(v.vt or 0) + 1, 0
set(job, 'vt', tries)
if known and v.vh == hash then
  verdict, status = 1, 'approved'
  end_code(job, status, now)
elseif not known and tries <= allowed then
  verdict = -2
  set(job, 'vl', (v.vl and v.vl .. ' ' or '') .. hash .. ' ?')
elseif tries >= allowed then
  status = 'max_attempts_reached'
  end_code(job, status, now)
end
set(job, 'vc', call .. ' ' .. verdict)
return {verdict, status}
