"""Schedules, per-image noise, guidance and samplers that turn noise into a clean latent; networks are callables."""
