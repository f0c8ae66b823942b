"""Writes a request's settings to a picture, and reads them back from our own and other programs' pictures."""
