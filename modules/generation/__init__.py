"""Turns a request into finished pictures: the options, the session and the sampling passes."""
