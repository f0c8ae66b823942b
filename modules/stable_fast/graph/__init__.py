"""From a module to a graph: traced, labelled, fused, split into stages, checked, written as JSON."""
