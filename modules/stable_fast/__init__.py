"""Stable-Fast: partial evaluation, fusion and capture of diffusion networks."""
