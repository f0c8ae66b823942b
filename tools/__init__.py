"""Holds developer programs; the app imports nothing from here."""
