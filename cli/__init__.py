"""The words of the command line and what they mean; pipeline.py runs them."""
