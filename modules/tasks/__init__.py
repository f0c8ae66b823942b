"""What can be asked for, as data, and the queue that does it."""
