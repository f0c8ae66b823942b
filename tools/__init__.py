"""Developer programs; the app imports nothing from here."""
