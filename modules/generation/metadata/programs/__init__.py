"""Reads other programs' formats, one file per format (no torch)."""
