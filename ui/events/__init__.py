"""Handles the page's events: takes form values and returns new values of its components."""
