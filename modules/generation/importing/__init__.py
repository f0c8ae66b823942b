"""Settings out of the pictures of other programs, each program's notation in a file of its own (no torch)."""
