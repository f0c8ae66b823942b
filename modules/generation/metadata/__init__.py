"""The settings in a picture: written, read back, and read from the pictures of other programs."""
