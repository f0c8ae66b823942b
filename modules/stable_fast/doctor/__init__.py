"""What Stable-Fast can do on this machine, why not more, and what to do."""
