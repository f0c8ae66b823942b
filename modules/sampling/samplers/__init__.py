"""Implements every sampler as a pure function."""
