-- Take a verification's code back, whatever became of its text; of one that was resent the newest.
-- ARGV: id, ms to keep jobs
-- Returns {id, status}, {} where there is no such verification; "failed" where that is how its job ended. What is over
-- stays as it ended.
local job, now = load(ARGV[1]), now_ms()
if not (job and job.v.vs) then return {} end
job = newest(job)
local status = standing(job, now)
if status == 'pending' or job.s == 'cancelled' then
  take_back(job, 'cancelled by the caller', now, ARGV[2])
  return {job.id, 'cancelled'}
end
return {job.id, job.s == 'failed' and job.s or status}
