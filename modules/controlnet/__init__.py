"""Loads ControlNets of every layout, prepares hints, and computes the residuals that steer the UNet."""
