-- Enter as one who serves jobs.
-- ARGV: "sandbox" or "live"; what tells one hash key from another, or ""
-- Returns {"OK"}, {"MODE", whose jobs this Redis holds} or {"KEY"}.
-- Without the key that the jobs here have, who wants no texts would not be found, and no code be right.
if ARGV[2] == '' and redis.call('EXISTS', 'd:hk') == 1 then return {'KEY'} end
return stranger(ARGV[1], ARGV[2]) or {'OK'}
