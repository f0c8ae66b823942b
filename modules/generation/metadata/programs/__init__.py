"""Other programs' notations, each in a file of its own (no torch)."""
