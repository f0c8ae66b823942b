"""Which sizes a picture may have, in pixels (no torch)."""

SIZE_STEP = 8  # what the autoencoder shrinks a side by
MIN_SIZE, MAX_SIZE = 64, 8192
