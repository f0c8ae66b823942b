"""Tasks as data, how each kind runs, and the queue that runs them."""
