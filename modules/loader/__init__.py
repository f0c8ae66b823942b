"""Reads model files safely, recognises them by keys and shapes, builds networks from them, and patches the networks."""
