"""Model files as flat dicts of tensors: read safely, under plain names."""
