-- Enter as one who serves or makes jobs of a mode.
-- ARGV: "sandbox" or "live"
-- Returns whose jobs this Redis holds.
return enter(ARGV[1])
