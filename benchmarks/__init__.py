"""Measures time and memory; results are committed under results/."""
