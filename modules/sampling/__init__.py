"""From noise to a clean latent: schedules, per-image noise, guidance, samplers; networks are seen only as callables."""
