"""Judges pictures of the demo model by geometry and colour."""
