"""Builds the visible page: components, text and style."""
