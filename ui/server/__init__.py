"""Protects Gradio from the network."""
