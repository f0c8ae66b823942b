"""Reads what enlarges: the second pass from A1111's `Hires ...` fields, and tiles from its `SD upscale ...` fields."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.core.sizes import MAX_SIZE, SIZE_STEP
from modules.core.typed import Unreadable
from modules.generation.metadata.fields import Fields
from modules.generation.metadata.named_files import find_model
from modules.generation.metadata.problems import Problem
from modules.generation.metadata.settings import AUTOMATIC, read_each
from modules.generation.option_table import TILED_OPTIONS
from modules.generation.options import HiresOptions, TiledOptions
from modules.images.methods import OWN_METHODS
from modules.sampling.names import resolve_sampler, resolve_scheduler

SCALE, SIZE = ("Hires upscale", "Hires scale"), ("Hires resize", "Hires size")
TILE_OVERLAP, TILE_UPSCALER = "SD upscale overlap", "SD upscale upscaler"
MARKS = (*SCALE, *SIZE, "Hires upscaler", "Hires steps", "Hires strength")
DENOISE = 0.7  # A1111's own default
METHODS = {
    "latent": "bilinear",
    "latent (antialiased)": "bilinear-antialiased",
    "latent (bicubic)": "bicubic",
    "latent (bicubic antialiased)": "bicubic-antialiased",
    "latent (nearest)": "nearest-exact",
    "latent (nearest-exact)": "nearest-exact",
    "latent nearest": "nearest-exact",  # SD.Next's names
    "latent nearest exact": "nearest-exact",
    "latent bilinear": "bilinear",
    "latent bicubic": "bicubic",
    "latent area": "area",
    "none": "lanczos",  # A1111 enlarges with Lanczos in this case
    "nearest": "lanczos",
}
# File names of upscalers by A1111's names.
FILES = {
    "r-esrgan 4x+": "RealESRGAN_x4plus",
    "r-esrgan 4x+ anime6b": "RealESRGAN_x4plus_anime_6B",
    "r-esrgan 2x+": "RealESRGAN_x2plus",
    "r-esrgan general 4xv3": "realesr-general-x4v3",
    "r-esrgan general wdn 4xv3": "realesr-general-wdn-x4v3",
    "r-esrgan animevideo": "realesr-animevideov3",
}


@dataclass(frozen=True, kw_only=True)
class SecondPass:
    options: HiresOptions
    left_out: tuple[str, ...] = ()


def second_pass(
    fields: Fields, given: Collection[str], folders: ModelFolders, problems: list[Problem]
) -> SecondPass | None:
    """Reads the second pass; returns None if all its fields are missing. Adds unusable values to the problems."""
    if not any(fields.text(name) for name in MARKS):
        return None
    method, left_out = _method(fields.text("Hires upscaler"), folders, "--hires-method")
    readers = {
        "method": lambda _: method,
        "steps": lambda fields: fields.whole("Hires steps"),
        "denoise": lambda fields: _or(fields.number("Hires strength", "Denoising strength"), DENOISE),
        "cfg": lambda fields: fields.number("Hires CFG Scale"),
        "sampler": _sampler,
        "scheduler": _scheduler,
    }
    values = read_each(readers, fields, given, _check, problems, "hires_")
    if not {"hires_size", "hires_scale"} & set(given):
        sizes = {"size": _target, "scale": lambda fields: fields.number(*SCALE)}
        values |= read_each(sizes, fields, given, _check, problems, "hires_")
        values |= values.pop("size", {})
        if not {"scale", "width"} & set(values):
            left_out = (*left_out, "the size of HiresFix, which is not named (2 times is used)")
    return SecondPass(options=HiresOptions(**values), left_out=() if "hires_method" in given else left_out)


@dataclass(frozen=True, kw_only=True)
class TiledUpscale:
    options: TiledOptions
    left_out: tuple[str, ...]


def tile_fields(tiled: TiledOptions) -> dict[str, str]:
    """Returns what A1111 would write for this tiled upscale."""
    return {TILE_OVERLAP: str(tiled.overlap), TILE_UPSCALER: tiled.method}


def tiled_upscale(
    fields: Fields, given: Collection[str], folders: ModelFolders, problems: list[Problem]
) -> TiledUpscale | None:
    """Reads A1111's script SD upscale, which does not name its scale; returns None if its fields are missing."""
    if not any(fields.text(name) for name in (TILE_OVERLAP, TILE_UPSCALER)):
        return None
    method, left_out = _method(fields.text(TILE_UPSCALER), folders, "--upscaler")
    replaced = {name for name, option in TILED_OPTIONS.items() if option in given}
    readers = {"overlap": lambda fields: fields.whole(TILE_OVERLAP), "method": lambda _: method}

    def check(name: str, value: Any) -> None:
        TiledOptions(**{name: value})

    values = read_each(readers, fields, replaced, check, problems)
    left_out = () if "method" in replaced else left_out
    if "scale" not in replaced:
        left_out = (*left_out, "the scale of SD upscale, which is not named (2 times is used)")
    return TiledUpscale(options=TiledOptions(**values), left_out=left_out)


def _check(name: str, value: Any) -> None:
    HiresOptions(**value if name == "size" else {name: value})


def _method(name: str | None, folders: ModelFolders, option: str) -> tuple[str | None, tuple[str, ...]]:
    """Returns the enlarging method, and remarks about it."""
    if name is None:
        return None, ()
    folded = name.casefold()
    if folded in METHODS or folded in OWN_METHODS:
        told = (f'the upscaler "{name}" (lanczos is used)',) if folded == "nearest" else ()
        return METHODS.get(folded, folded), told
    for wanted in (name, FILES.get(folded, name)):
        try:
            find_model(folders, "upscalers", wanted)
        except ModelFileError:
            continue
        return wanted, ()
    return None, (f'the upscaler "{name[:60]}", which is not in models/upscalers (lanczos is used; or {option})',)


def _target(fields: Fields) -> dict[str, int] | None:
    """Returns both sides in steps of 8; as in A1111, a side of 0 is computed from the picture's aspect ratio."""
    size = fields.size(*SIZE)
    if size is None or size == (0, 0):
        return None
    width, height = size
    if not (width and height):
        own = fields.size("Size")
        if own is None or not (own[0] and own[1]):
            raise Unreadable(f'"{width}x{height}" needs the size of the picture, which is missing')
        width, height = width or height * own[0] // own[1], height or width * own[1] // own[0]
    sides = (min(max(round(side / SIZE_STEP), 8) * SIZE_STEP, MAX_SIZE) for side in (width, height))
    return dict(zip(("width", "height"), sides, strict=True))


def _sampler(fields: Fields) -> str | None:
    name = _other(fields, "Hires sampler")
    return None if name is None else resolve_sampler(name).sampler


def _scheduler(fields: Fields) -> str | None:
    """Returns the schedule, whose name may follow the sampler's; None means the same as in the first pass."""
    name, sampler = _other(fields, "Hires schedule type", "Hires scheduler"), _other(fields, "Hires sampler")
    if name is not None and name.casefold() != AUTOMATIC:
        return resolve_scheduler(name)
    try:
        choice = None if sampler is None else resolve_sampler(sampler)
    except OptionsError:  # _sampler reports this, unless another sampler is given
        return None
    if choice is None or choice.scheduler is not None or name is None:
        return None if choice is None else choice.scheduler
    return resolve_scheduler(name, sampler=choice.sampler)


def _other(fields: Fields, *names: str) -> str | None:
    """Returns a value that differs from that of the first pass."""
    value = fields.text(*names)
    return None if value is None or value.casefold().startswith("use same") else value


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
