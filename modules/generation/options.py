"""A request: everything that determines its pictures, checked once (no torch here)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modules.controlnet.names import CONTROL_KINDS, PREPROCESSORS
from modules.core.errors import LONGEST_QUOTE, OptionsError, shortened
from modules.core.sizes import MAX_SIZE, MIN_SIZE, SIZE_STEP
from modules.generation.option_table import MAX_STEPS, PLAIN_OPTIONS, check_choice, check_range
from modules.images.methods import IMAGE_MODES

MAX_SEED = 2**63 - 1
MAX_PROMPT = 20_000  # characters
RANDOM_SEED = -1  # other programs use it for a random seed
RANDOM_SEEDS = 2**32  # random seeds stay in the range that every other program accepts

CONTROL_MODES = ("balanced", "prompt", "control")
MASK_CONTENTS = ("original", "fill", "noise", "empty")
MEMORY_MODES = ("auto", "high", "low")  # for the whole session


@dataclass(frozen=True, kw_only=True)
class LoraChoice:
    """A LoRA, by name or path; `text_strength` defaults to `strength`."""

    name: str
    strength: float = 1.0
    text_strength: float | None = None

    @property
    def clip_strength(self) -> float:
        return self.strength if self.text_strength is None else self.text_strength

    def __post_init__(self) -> None:
        for value in (self.strength, self.clip_strength):
            check_range("LoRA strength", value, -20.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class ControlChoice:
    """A ControlNet or T2I-Adapter with its picture; `start` and `end` are fractions of the sampling progress.

    `kind` tells a union ControlNet what the picture is; it is for such files only.
    """

    name: str
    image: Path
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: str = "balanced"
    preprocessor: str = "none"
    kind: str | None = None

    def __post_init__(self) -> None:
        check_range("ControlNet strength", self.strength, 0.0, 10.0)
        check_range("ControlNet start", self.start, 0.0, 1.0)
        check_range("ControlNet end", self.end, 0.0, 1.0)
        if self.start > self.end:
            raise OptionsError(f"ControlNet start {self.start:g} is after its end {self.end:g}: swap the two.")
        check_choice("ControlNet mode", self.mode, CONTROL_MODES)
        check_choice("ControlNet preprocessor", self.preprocessor, PREPROCESSORS)
        if self.kind is not None:
            check_choice("ControlNet kind", self.kind, tuple(CONTROL_KINDS))


@dataclass(frozen=True, kw_only=True)
class HiresOptions:
    """The second pass: enlarge by `scale` (or to width x height), then sample again with `denoise`.

    `steps` 0, or None in another field, means "as in the first pass".
    """

    scale: float = 2.0
    width: int | None = None
    height: int | None = None
    method: str = "lanczos"
    steps: int = 0
    denoise: float = 0.35
    cfg: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    keep_first_pass: bool = False

    def __post_init__(self) -> None:
        check_range("HiresFix scale", self.scale, 1.0, 4.0)
        check_range("HiresFix denoise", self.denoise, 0.0, 1.0)
        check_range("HiresFix steps", self.steps, 0, MAX_STEPS)
        if self.cfg is not None:
            check_range("HiresFix cfg", self.cfg, 0.0, 100.0)
        if (self.width is None) != (self.height is None):
            raise OptionsError("HiresFix needs both a width and a height, or neither; give the other one too.")
        for name, value in (("HiresFix width", self.width), ("HiresFix height", self.height)):
            _check_size(name, value)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size of the second pass for a first pass of width x height pixels."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        return tuple(max(SIZE_STEP, round(side * self.scale / SIZE_STEP) * SIZE_STEP) for side in (width, height))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class InitImage:
    """A picture to start from (image to image), with an optional mask for inpainting (white is repainted)."""

    image: Path
    denoise: float = 0.75
    resize: str = "crop"
    mask: Path | None = None
    mask_blur: int = 4
    mask_content: str = "original"

    def __post_init__(self) -> None:
        check_range("denoise", self.denoise, 0.0, 1.0)
        check_choice("resize mode", self.resize, IMAGE_MODES)
        check_choice("masked content", self.mask_content, MASK_CONTENTS)
        check_range("mask blur", self.mask_blur, 0, 64)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """A request for `number` x `batch` pictures; picture i uses seed + i.

    If width and height are left out, the checkpoint's native size is used. A missing seed, or -1, means a random seed.
    Raises OptionsError with a readable sentence when a value is invalid.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    number: int = 1
    batch: int = 1
    original_size: str | None = None  # "1024x768", for SDXL; None: the size of each pass
    crop: str | None = None  # "0,128", for SDXL; None: not cropped
    seed: int | None = None
    steps: int = 20
    cfg: float = 7.0
    rescale_cfg: float = 0.0
    sampler: str = "dpmpp_2m"
    scheduler: str | None = None  # None: as in the sampler's label, or else karras
    clip_skip: int = 1
    emphasis: str = "comfy"
    checkpoint: str | None = None
    vae: str | None = None
    text_encoders: tuple[str, ...] = ()  # by name or path, in place of the checkpoint's own
    prediction: str | None = None  # "epsilon", "v" or "edm"; None: detect it
    loras: tuple[LoraChoice, ...] = ()
    controls: tuple[ControlChoice, ...] = ()
    init: InitImage | None = None
    hires: HiresOptions | None = None
    stable_fast: str = "off"
    only: int | None = field(default=None)  # keeps only this picture of the batch, to reproduce a single one

    def __post_init__(self) -> None:
        _check_length("prompt", self.prompt)
        _check_length("negative prompt", self.negative_prompt)
        _check_size("width", self.width)
        _check_size("height", self.height)
        for option in PLAIN_OPTIONS:
            option.check(getattr(self, option.name))
        if self.seed == RANDOM_SEED:
            object.__setattr__(self, "seed", None)
        if self.seed is not None:
            check_range("seed", self.seed, 0, MAX_SEED - self.number * self.batch)
        if self.clip_skip == 0:
            raise OptionsError("Clip skip 0 has no meaning: 1 uses the last layer, 2 the one before it.")
        if self.only is not None:
            check_range("picture of the batch", self.only, 0, self.number * self.batch - 1)

    @property
    def images(self) -> int:
        return self.number * self.batch

    @property
    def pictures(self) -> list[Path]:
        """Lists the picture files used in the request."""
        init = [self.init.image, *([self.init.mask] if self.init.mask else [])] if self.init else []
        return [*(control.image for control in self.controls), *init]

    def resolved(self, native_size: int) -> ResolvedOptions:
        """Returns the same request with size and seed filled in."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        decided: dict[str, Any] = {
            "width": self.width or native_size,
            "height": self.height or native_size,
            "seed": random_seed() if self.seed is None else self.seed,
        }
        return ResolvedOptions(**given | decided)


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(GenerationOptions):
    """A request with a definite size and seed."""

    width: int = field()
    height: int = field()
    seed: int = field()


def random_seed() -> int:
    return random.SystemRandom().randrange(RANDOM_SEEDS)


def default_of(name: str) -> Any:
    """Returns the default of an option, so that no front end repeats it."""
    return next(f.default for f in fields(GenerationOptions) if f.name == name)


def _check_size(name: str, value: int | None) -> None:
    if value is None:
        return
    if not MIN_SIZE <= value <= MAX_SIZE or value % SIZE_STEP:
        nearest = round(min(max(value, MIN_SIZE), MAX_SIZE) / SIZE_STEP) * SIZE_STEP
        raise OptionsError(
            f"{name} {shortened(value)} cannot be used: it must be a multiple of {SIZE_STEP} "
            f"from {MIN_SIZE} to {MAX_SIZE}, for example {nearest}."
        )


def _check_length(name: str, text: str) -> None:
    if len(text) > MAX_PROMPT:
        raise OptionsError(f"The {name} has {len(text)} characters: {MAX_PROMPT} is the most.")


def read_tuning_seconds(text: str) -> float:
    """Reads the value of --stable-fast-tune. Raises OptionsError if it is not a time in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise OptionsError(f"--stable-fast-tune {text[:LONGEST_QUOTE]}: give seconds, for example 30.")
    return seconds
