"""Defines and reads the command line; pipeline.py runs it."""
