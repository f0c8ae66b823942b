"""Notices that a network changed since the last picture: its parts, and the contents of its weights."""
