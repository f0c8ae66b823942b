"""Builds the web interface and maps forms to requests; everything else is in modules/."""
