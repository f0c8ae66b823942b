"""Trains the demo networks stage by stage, and exports them."""
