"""Products in eight bits: which layers have them, and how their activations and weights become eight bits wide."""
