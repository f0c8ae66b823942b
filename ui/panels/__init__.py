"""Builds what the page shows: components, their text and their style."""
