"""Attention over packed projections."""
