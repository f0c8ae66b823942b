"""Turns files of LoRA and its relatives into weight patches for the UNet and the text encoder."""
