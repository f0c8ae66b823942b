"""Turns noise into a clean latent: schedules, per-image noise, guidance, samplers; networks are plain callables."""
