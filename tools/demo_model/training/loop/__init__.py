"""Provides what all training stages share: clock, optimizer, CUDA graph, saved state, and the loop itself."""
