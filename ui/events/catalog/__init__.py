"""Handlers of what the page shows of model files: cards, the checkpoint's facts, the demo's examples."""
