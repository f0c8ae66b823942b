"""The samplers, each as a pure function."""
