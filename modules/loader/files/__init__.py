"""Reads model files safely as flat dicts of tensors with plain names."""
