"""Defines the captioned world: scenes as numbers, their captions, and their drawing."""
