"""ControlNet: loading of every layout, hints, and the residuals that steer the UNet."""
