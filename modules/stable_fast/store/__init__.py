"""What outlives the process: kept graphs, and which implementation was fastest."""
