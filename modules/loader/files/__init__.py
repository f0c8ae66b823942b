"""Reads model files safely as flat dicts of tensors under plain names."""
