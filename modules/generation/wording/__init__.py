"""From the prompts of a request to the prompts of its pictures (no torch here)."""
