"""Masks: made from a colour, and taken apart."""
