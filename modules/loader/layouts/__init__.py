"""Converts key names between LDM and diffusers, and assigns tensors to networks."""
