-- Give jobs back that were taken and not claimed, as if they had never been.
-- ARGV: the taker's token, then the ids
-- Returns the ids that were given back.
local released = {}
for i = 2, #ARGV do
  local job = load(ARGV[i])
  if job and job.s == 'queued' and job.taker == ARGV[1] then
    set(job, 'k', nil)
    set(job, 'u', nil)
    released[#released + 1] = job.id
  end
end
return released
