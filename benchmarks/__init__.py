"""Programs that measure time and memory; results are committed under results/."""
