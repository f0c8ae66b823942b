"""Loads ControlNets in any layout, prepares hints, and computes the residuals that steer the UNet."""
