"""Parts of a captured graph that run beside each other: which they are, and the second stream for them."""
