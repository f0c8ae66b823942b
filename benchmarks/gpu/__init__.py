"""Measures one GPU: its abilities, the time of each part of a step, and the fastest choices."""
