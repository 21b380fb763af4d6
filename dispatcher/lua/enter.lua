-- Enter as one who serves jobs.
-- ARGV: "sandbox" or "live"; what tells one hash key from another, or ""
-- Returns {"OK"}, {"MODE", whose jobs this Redis holds} or {"KEY"}.
return stranger(ARGV[1], ARGV[2]) or {'OK'}
