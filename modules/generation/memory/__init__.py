"""What is kept in memory between requests, and what fits."""
