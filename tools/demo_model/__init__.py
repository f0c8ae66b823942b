"""Makes the demo checkpoint: a small captioned world, its training, export and judged evaluation."""
