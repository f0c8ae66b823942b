"""Convolutions with what follows them."""
