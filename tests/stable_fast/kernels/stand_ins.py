"""An implementation that only refuses, and counts how often it was asked."""

from __future__ import annotations


def refusing(error):
    def implementation(*args):
        implementation.calls += 1
        raise error

    implementation.calls = 0
    return implementation
