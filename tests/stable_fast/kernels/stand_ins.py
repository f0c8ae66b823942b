"""An implementation that always refuses, and counts its calls."""

from __future__ import annotations


def refusing(error):
    def implementation(*args):
        implementation.calls += 1
        raise error

    implementation.calls = 0
    return implementation
