"""Networks that benchmarks time."""
