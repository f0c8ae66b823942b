"""Reads A1111's hr_* fields: the second pass."""

from __future__ import annotations

from api.a1111.refusals import HIRES_UNSUPPORTED, check_all
from api.fields import Fields
from modules.core.errors import OptionsError
from modules.core.sizes import SIZE_STEP
from modules.generation.metadata.hires import FILES, METHODS
from modules.generation.options import HiresOptions
from modules.images.methods import OWN_METHODS

DEFAULT_DENOISE, DEFAULT_SCALE, DEFAULT_UPSCALER = 0.75, 2.0, "Latent"  # A1111's
SAME = "use same"  # "Use same sampler", "Use same scheduler"


def read_hires(asked: Fields, size: tuple[int, int]) -> HiresOptions:
    """Returns the second pass of a picture of this width and height. Raises OptionsError."""
    check_all(HIRES_UNSUPPORTED, asked.values)
    target = read_target(asked, *size)
    return HiresOptions(
        scale=DEFAULT_SCALE if target else asked.number("hr_scale", DEFAULT_SCALE),
        width=target[0] if target else None,
        height=target[1] if target else None,
        method=method_of(asked.text("hr_upscaler") or DEFAULT_UPSCALER),
        steps=asked.whole("hr_second_pass_steps", 0),
        denoise=asked.number("denoising_strength", DEFAULT_DENOISE),
        cfg=asked.number("hr_cfg", 0.0) or None,
        sampler=another(asked.text("hr_sampler_name")),
        scheduler=another(asked.text("hr_scheduler")),
    )


def read_target(asked: Fields, width: int, height: int) -> tuple[int, int] | None:
    """Returns the size in hr_resize_x and hr_resize_y; a side of 0 follows from the picture's aspect ratio."""
    wide, high = asked.whole("hr_resize_x", 0), asked.whole("hr_resize_y", 0)
    if not wide and not high:
        return None
    if wide and high and not is_same_shape((wide, high), (width, height)):
        raise OptionsError(
            f"hr_resize_x {wide} and hr_resize_y {high} have another aspect ratio than {width}x{height}: "
            "leave one of them out."
        )
    return wide or in_steps(high * width / max(height, 1)), high or in_steps(wide * height / max(width, 1))


def is_same_shape(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Tells whether the aspect ratios differ by a few steps of rounding at most."""
    return abs(first[0] * second[1] - first[1] * second[0]) <= SIZE_STEP * max(*first, *second)


def in_steps(side: float) -> int:
    return round(side / SIZE_STEP) * SIZE_STEP


def method_of(upscaler: str) -> str:
    """Returns our method for A1111's name of an upscaler; any other name is that of a file."""
    folded = upscaler.casefold()
    if folded in OWN_METHODS:
        return folded
    return METHODS.get(folded) or FILES.get(folded, upscaler)


def another(name: str) -> str | None:
    """Returns a name that differs from the first pass."""
    return None if not name or name.casefold().startswith(SAME) else name
