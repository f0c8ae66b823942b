"""Recognises models that were trained for few steps, and offers their settings."""
