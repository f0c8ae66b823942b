"""Reads other programs' notations, each in a separate file (no torch)."""
