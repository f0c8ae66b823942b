"""Reports what Stable-Fast can do on this machine, what limits it, and how to fix that."""
