"""Defines and runs the command line; pipeline.py is its entry point."""
