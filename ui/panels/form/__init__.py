"""Builds the form: all settings of a picture, as Gradio components by field name."""
