"""The networks: UNet, ControlNet, autoencoder and text encoders, under the checkpoint's own (LDM) parameter names."""
