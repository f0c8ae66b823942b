"""Lists the available model files, and downloads a first one (no torch here)."""
