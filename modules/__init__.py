"""LightDiffusion-Next: Stable Diffusion 1.x / 2.x with the Stable-Fast accelerator."""
