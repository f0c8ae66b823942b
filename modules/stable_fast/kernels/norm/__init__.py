"""Normalisations, fused with the operations that follow them."""
