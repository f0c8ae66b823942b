"""Judges a user's own pictures as others publish it: FID and CLIP score."""
