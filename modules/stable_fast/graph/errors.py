"""Why a module cannot be traced."""

from __future__ import annotations


class TraceError(RuntimeError):
    """The module cannot be turned into one graph."""


class Untraceable(TraceError):
    """It cannot without named sizes either."""
