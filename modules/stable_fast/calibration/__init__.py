"""Scales of activations in eight bits: what the first picture's largest values are, and where they are kept."""
