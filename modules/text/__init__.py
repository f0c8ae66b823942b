"""Turns a prompt into conditioning: handles emphasis, tokens, textual inversion and chunks for the text encoder."""
