"""Model files: read safely, recognised by keys and shapes, built into networks, patched in place."""
