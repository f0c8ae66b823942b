"""LoRA and its relatives: a file becomes weight patches for the UNet and the text encoder."""
