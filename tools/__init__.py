"""Developer programs: nothing here is imported by the app."""
