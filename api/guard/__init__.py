"""Protects the server from the network, with or without the page."""
