"""From a prompt to conditioning: emphasis, tokens, textual inversion, text encoder chunks."""
