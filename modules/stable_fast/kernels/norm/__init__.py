"""Normalisations with what follows them."""
