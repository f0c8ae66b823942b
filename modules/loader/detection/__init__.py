"""What a model file is, by its keys and shapes."""
