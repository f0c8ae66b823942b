"""Fusions for what transformers write: RMSNorm, rotary embedding, adaptive LayerNorm, gates."""
