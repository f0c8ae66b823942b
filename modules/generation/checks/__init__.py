"""What can be wrong with a request: before anything is loaded, and when a picture holds no numbers."""
