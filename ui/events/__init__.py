"""Handles the page's events: converts form values to new values of components."""
