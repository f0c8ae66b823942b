"""Tasks as data, code to run each kind of task, and the queue."""
