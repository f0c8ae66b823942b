"""Turns LoRA and related files into weight patches for the UNet and the text encoder."""
