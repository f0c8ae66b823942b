"""Whole pipelines of diffusers: a front before each of their networks."""
