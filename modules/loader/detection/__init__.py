"""Recognises model files by their keys and shapes."""
