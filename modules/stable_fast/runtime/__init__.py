"""The runtime of each step: programs at actual sizes, prepared weights, captured graphs."""
