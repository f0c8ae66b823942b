"""What runs at each step: programs at actual sizes, prepared weights, captured graphs."""
