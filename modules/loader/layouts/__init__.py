"""Key names: LDM's, diffusers', and which network a tensor belongs to."""
