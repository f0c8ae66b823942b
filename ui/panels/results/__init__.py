"""Builds the right column: progress, pictures, comparison, history and help."""
