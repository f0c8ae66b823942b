"""Writes the settings in a picture, reads them back, and reads those of other programs."""
