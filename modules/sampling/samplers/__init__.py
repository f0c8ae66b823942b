"""Every sampler, a pure function each."""
