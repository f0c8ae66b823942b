"""The front ends' way to Stable-Fast's doctor: what can be accelerated on this machine, and why not more."""

from __future__ import annotations

from collections.abc import Callable


def run_doctor(write: Callable[[str], object], *, as_json: bool) -> int:
    """Gives the diagnosis to `write`; 0, or 1 when a kernel gives wrong results."""
    from modules.stable_fast.doctor import main  # brings torch, which a front end starts without

    return main(["--json"] if as_json else [], write)
