"""Handles what is done with a finished picture."""
