"""Measures one GPU: its capabilities, the time of each part of a step, and the fastest choices."""
