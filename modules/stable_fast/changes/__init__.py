"""Notices what changed in a network: parts, attributes, weights, and the adapters of PEFT among them."""
