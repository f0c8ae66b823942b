"""Picture files: the output folder, its history, and the pictures that requests start from."""
