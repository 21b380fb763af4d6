-- Write what a provider that judges codes itself said of one.
-- ARGV: id, keyed hash of the code, the provider's status, "1" where it is right, "?" where it is unless another code was,
--       else "", tries allowed, and the name of the call where this is asked for whoever typed the code, "" where it is the
--       worker's
-- Returns {1 where the code is right and it is for this call to say so, else 0; the verification's status}.
--
-- "Approved" without "right" means that some code was right before: where that answer never came, and it was this code
-- that was asked about then, this is its approval. Where the answers about two codes never came nobody can tell which of
-- them it was: then neither is right. A right code is told to one caller, however often it is asked about.
local hash, told, right, allowed, call = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local job, now = load(ARGV[1]), now_ms()
if not (job and job.v.vs) then return {0, ''} end

local asked = unanswered(job, hash)
if job.v.vs == 'pending' and asked > 0 then
  local before = right == '?' or (told == 'approved' and right == '' and asked > 1)
  if right == '1' or (before and not others_unanswered(job, hash)) then
    mark_check(job, hash, {['?'] = true}, 'y')
    end_code(job, 'approved', now)
  elseif told == 'approved' and not before then
    -- Another code was: whoever has that one may still say so.
    mark_check(job, hash, {['?'] = true}, 'n')
  elseif told ~= 'approved' and told ~= 'pending' then
    end_code(job, told, now)
  elseif told == 'pending' then
    while mark_check(job, hash, {['?'] = true}, 'n') do end
  end
  -- Of several on their way the last one may be right.
  if job.v.vs == 'pending' and tonumber(job.v.vt or 0) >= allowed and not string.find(job.v.vl, '?', 1, true) then
    end_code(job, 'max_attempts_reached', now)
  end
end

if call == '' or job.v.vs ~= 'approved' then return {0, job.v.vs} end
if mark_check(job, hash, {y = true, [call] = true}, call) then return {1, 'approved'} end
return {0, 'approved'}
