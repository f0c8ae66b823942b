"""Which model files there are, and the download of a first one (no torch here)."""
