-- Assert claims again that Redis lost: what was sent under them must not be sent again, and has used up its budget.
-- ARGV: a "1" for each job that was won and a "0" for each that was not, in one word; then the claim's own arguments
-- Returns how many of them were lost.
local lease, keep = tonumber(ARGV[2]), ARGV[3]
local now = now_ms()
local lost = 0

for position, claim in ipairs(read_claims(5)) do
  local job = string.sub(ARGV[1], position, position) == '1' and load(claim.id)
  if job and job.s == 'queued' and job.f ~= claim.token then
    estimate(job.p, claim.text, claim.each)
    local adds = uncounted(job, claim.mine, claim.text)
    take_claim(job, claim, adds, 'claimed before, and Redis had lost that', now, lease, keep)
    lost = lost + 1
  end
end
close_budgets()
return lost
