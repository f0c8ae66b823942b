"""What every training stage shares: clock, optimizer, CUDA graph, saved state, and the loop itself."""
