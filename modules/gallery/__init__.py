"""Picture files: the output folder, its history, and start pictures."""
