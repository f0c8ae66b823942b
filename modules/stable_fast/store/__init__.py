"""Data that outlives the process: saved graphs, and which implementation was fastest."""
