"""The second demo model, in SDXL's layout."""
