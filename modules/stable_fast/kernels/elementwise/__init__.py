"""Products and sums of whole tensors in one pass."""
