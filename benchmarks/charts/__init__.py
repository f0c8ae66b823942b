"""Draws the results as tables, numbers and pictures in the documentation."""
