"""One page per provider, all of one shape: see `base` for the contract."""
