"""Decides which networks of a checkpoint stay on the GPU, and which are there only while they work (`--memory`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

UNET = "UNet"
TEXT = "text encoder"
VAE = "VAE"
LEAVING = (TEXT, VAE)  # in the order in which they leave when memory is short; the UNet always stays


@dataclass(frozen=True)
class Needs:
    """What a checkpoint needs, in bytes: its networks by name, and the work on one picture of its native size."""

    networks: Mapping[str, int]
    work: int


def leaving(mode: str, needs: Needs, free: int) -> tuple[str, ...]:
    """Returns the networks that leave the GPU after their work. `free` counts the bytes before anything is loaded.

    `high`: none leave. `low`: all that can. `auto`: as few as needed for the rest and the work to fit into `free`.
    """
    if mode == "high":
        return ()
    if mode == "low":
        return LEAVING
    needed, gone = sum(needs.networks.values()) + needs.work, list[str]()
    for name in LEAVING:
        if needed <= free:
            break
        needed -= needs.networks[name]
        gone.append(name)
    return tuple(gone)
