"""The networks: UNet, ControlNet, autoencoder and text encoders, with the parameter names of the checkpoint (LDM)."""
