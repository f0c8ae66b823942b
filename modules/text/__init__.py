"""Turns a prompt into conditioning: emphasis, tokens, textual inversion, text encoder chunks."""
