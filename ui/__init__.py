"""The web interface: layout and the mapping between form and request; everything else is in modules/generation."""
