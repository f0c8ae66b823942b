"""Checks a request before anything is loaded, and explains why a picture came out as NaN."""
