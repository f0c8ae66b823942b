"""What the browser gets: style and scripts."""
