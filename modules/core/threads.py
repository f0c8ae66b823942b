"""How PyTorch's threads wait for each other on a CPU."""

from __future__ import annotations

import os

OWN_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # variables of GNU OpenMP
SPINS = "10000"  # instead of up to 300,000


def let_threads_sleep() -> None:
    """Makes threads sleep soon while they wait, unless the user says otherwise. Works before torch is imported.

    By default they spin for milliseconds. If other programs are busy, a spinning thread takes the core that the awaited
    one needs: with two busy programs on two cores, a picture of one second took more than 90, and two took 7 with this.
    """
    if not any(name in os.environ for name in OWN_CHOICES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
