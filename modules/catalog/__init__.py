"""Which models there are, and where the first one comes from (no torch)."""
