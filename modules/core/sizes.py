"""Limits on picture sizes, in pixels (no torch)."""

SIZE_STEP = 8  # factor by which the autoencoder shrinks a side
MIN_SIZE, MAX_SIZE = 64, 8192
