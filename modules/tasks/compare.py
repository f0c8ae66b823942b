"""Compares a request with and without Stable-Fast: times, memory, difference, and both pictures side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace

import torch
from PIL import Image

from modules.core.device import made_current, memory_report
from modules.core.errors import OptionsError
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture
from modules.generation.job import prepare_job
from modules.generation.options import GenerationOptions
from modules.generation.progress import OnProgress
from modules.generation.session import Session
from modules.generation.text_to_image import device_errors_for_people, generate
from modules.generation.wording.spelled_out import first_picture
from modules.images.likeness import difference, structural_similarity
from modules.stable_fast import has_eight_bits, level_in_force


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: the level in force, the times of two pictures, and the GPU's peak memory.

    The first picture's time includes warm-up; the second one's does not. `reason` explains why the level
    differs from the requested one.

    On a CPU `peak_bytes` is None, since the system only records the peak of the whole process since its launch.
    """

    asked: str
    level: str
    reason: str
    first_seconds: float
    steady_seconds: float
    peak_bytes: int | None
    picture: Picture

    def to_dict(self) -> dict[str, object]:
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "picture"}

    def to_text(self) -> str:
        peak = "" if self.peak_bytes is None else f", peak memory {self.peak_bytes / 2**20:.0f} MiB"
        return f"{self.level:>6}: first picture {self.first_seconds:.2f} s, next {self.steady_seconds:.2f} s{peak}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both sides, and how their pictures differ: PSNR in dB (infinite when equal), SSIM, largest difference of 255."""

    eager: Side
    accelerated: Side
    psnr: float
    ssim: float
    max_difference: int
    emulated: str = ""  # the precision, if plain PyTorch stood in for a card that has it

    @property
    def image(self) -> Image.Image:
        """Combines both pictures, with eager on the left and Stable-Fast on the right."""
        left, right = self.eager.picture.image, self.accelerated.picture.image
        both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
        both.paste(left, (0, 0))
        both.paste(right, (left.width, 0))
        return both

    def to_dict(self) -> dict[str, object]:
        sides = {"eager": self.eager.to_dict(), "stable_fast": self.accelerated.to_dict()}
        psnr = None if math.isinf(self.psnr) else round(self.psnr, 2)
        return {
            **sides,
            "psnr_db": psnr,
            "ssim": round(self.ssim, 5),
            "max_difference": self.max_difference,
            "emulated": self.emulated,
        }

    def to_text(self) -> str:
        eager, fast = self.eager, self.accelerated
        lines = [eager.to_text(), fast.to_text()]
        if fast.level != fast.asked:
            lines.append(f"{fast.level} instead of {fast.asked}: {fast.reason}")
        if self.emulated:
            lines.append(f"{self.emulated} was emulated: the pictures are those of a card that has it, not the times")
        elif fast.level != "off":
            lines.append(f"{eager.steady_seconds / fast.steady_seconds:.2f} times as fast once warm")
        likeness = "equal bit for bit" if math.isinf(self.psnr) else f"PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.4f}"
        return "\n".join([*lines, f"pictures: {likeness}, largest difference {self.max_difference} of 255"])


def compare(
    options: GenerationOptions,
    session: Session,
    *,
    on_progress: OnProgress | None = None,
    cancel: CancelToken | None = None,
) -> Comparison:
    """Makes the request's first picture (or the only one it keeps) twice on each side.

    Models are loaded and LoRAs merged before the clock starts. Raises OptionsError if there is nothing to accelerate.
    """
    level = options.stable_fast if options.stable_fast != "off" else "full"
    without = {"stable_fast": "off", "stable_fast_precision": "off", "stable_fast_skip": 0}
    highest, reason = level_in_force(level)
    if highest == "off":
        raise OptionsError(f"There is nothing to compare: {reason} switches Stable-Fast off; unset it and start again.")
    with made_current(session.device), device_errors_for_people(session):
        made = prepare_job(replace(first_picture(options, session.folders), **without), session).options
    options = replace(options, width=made.width, height=made.height, seed=made.seed)
    if options.only is None:
        options = replace(options, number=1, batch=1)
    ways = (without, {"stable_fast": level})
    emulates = session.device.type != "cuda" and has_eight_bits(options.stable_fast_precision)
    with emulating(session) if emulates else nullcontext():
        sides = [run_side(replace(options, **way), session, on_progress, cancel) for way in ways]
    pictures = [side.picture.image for side in sides]
    psnr, largest = difference(*pictures)
    ssim = structural_similarity(*pictures)
    found = Comparison(eager=sides[0], accelerated=sides[1], psnr=psnr, ssim=ssim, max_difference=largest)
    return replace(found, emulated=options.stable_fast_precision) if emulates else found


@contextmanager
def emulating(session: Session) -> Iterator[None]:
    """Inside, products in eight bits that the device does not have are computed by plain PyTorch."""
    before, session.emulated = session.emulated, True
    try:
        yield
    finally:
        session.emulated = before


def run_side(
    options: GenerationOptions, session: Session, on_progress: OnProgress | None, cancel: CancelToken | None
) -> Side:
    """Makes the picture twice, to time it with and without warm-up."""
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)
    seconds: list[float] = []
    pictures: list[Picture] = []
    for _ in range(2):
        began = time.perf_counter()
        pictures = list(generate(options, session, on_progress=on_progress, cancel=cancel))
        seconds.append(time.perf_counter() - began)
    report = session.stable_fast_report if options.stable_fast != "off" else None
    level, reason = report.in_force if report else ("off", "")
    return Side(
        asked=options.stable_fast,
        level=level,
        reason=reason,
        first_seconds=seconds[0],
        steady_seconds=seconds[1],
        peak_bytes=memory_report(session.device).device_peak,
        picture=pictures[-1],
    )
