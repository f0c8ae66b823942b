"""Capturing functions of tensors as CUDA graphs, and keeping a bounded number of them."""
