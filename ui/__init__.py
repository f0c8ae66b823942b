"""Builds the web interface and converts forms to requests; everything else is in modules/."""
