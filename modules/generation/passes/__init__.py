"""Sampling of one batch, whose pictures may belong to several requests."""
