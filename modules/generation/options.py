"""A request: everything that determines its pictures, checked once (no torch here)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modules.controlnet.names import CONTROL_KINDS, PREPROCESSORS
from modules.core.colours import MOST_TOLERANCE, as_hex, read_colour
from modules.core.errors import OptionsError
from modules.core.sizes import MAX_SIZE, check_sides, check_size, nearest_size
from modules.generation.option_table import MAX_STEPS, PLAIN_OPTIONS, REFINER_START, check_choice, check_range
from modules.images.methods import IMAGE_MODES, LATENT_METHODS

MAX_SEED = 2**63 - 1
MAX_PROMPT = 20_000  # characters
RANDOM_SEED = -1  # other programs use it for a random seed
RANDOM_SEEDS = 2**32  # random seeds stay in the range that every other program accepts

CONTROL_MODES = ("balanced", "prompt", "control")
# The fields of GenerationOptions that have options of their own for each of their parts, or none.
EXTRA_FIELDS = {"loras", "controls", "init", "hires", "tiled", "only"}
MASK_CONTENTS = ("original", "fill", "noise", "empty")
MAX_SEAM = 512  # pixels
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
            check_size(name, value)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size of the second pass for a first pass of width x height pixels."""
        if self.width is not None and self.height is not None:
            return self.width, self.height
        return nearest_size((width * self.scale, height * self.scale))


@dataclass(frozen=True, kw_only=True)
class InitImage:
    """A picture to start from (image to image), with an optional mask for inpainting (white is repainted).

    With `only_masked`, only the part round the mask is enlarged to the request's size, repainted and put back. It
    reaches `mask_padding` pixels of the picture beyond the mask. With `each_part`, the mask's separate parts are
    repainted like this one after the other.

    With `mask_colour`, what is near this colour of the picture is repainted too: no channel differs by more than
    `mask_tolerance`. With `mask_soft`, grey is repainted in fewer steps than white. With `outpaint`, the picture is
    extended to the left, top, right and bottom by so many pixels; the repainted area fades over `outpaint_seam` pixels
    of the old picture.
    """

    image: Path
    denoise: float = 0.75
    resize: str = "crop"
    mask: Path | None = None
    mask_blur: int = 4
    mask_content: str = "original"
    mask_colour: str | None = None  # as "#ff0000"
    mask_tolerance: int = 30  # of 255
    mask_invert: bool = False  # repaints black instead of white
    only_masked: bool = False
    mask_padding: int = 32
    mask_soft: bool = False
    each_part: bool = False
    outpaint: tuple[int, ...] = ()  # left, top, right, bottom; empty: the picture keeps its size
    outpaint_seam: int = 32

    def __post_init__(self) -> None:
        check_range("denoise", self.denoise, 0.0, 1.0)
        check_choice("resize mode", self.resize, IMAGE_MODES)
        check_choice("masked content", self.mask_content, MASK_CONTENTS)
        check_range("mask blur", self.mask_blur, 0, 64)
        check_range("mask padding", self.mask_padding, 0, MAX_SIZE)
        check_range("mask tolerance", self.mask_tolerance, 0, MOST_TOLERANCE)
        check_range("outpainting seam", self.outpaint_seam, 0, MAX_SEAM)
        check_sides(self.outpaint)
        if not any(self.outpaint):
            object.__setattr__(self, "outpaint", ())
        if self.mask_colour is not None:
            object.__setattr__(self, "mask_colour", as_hex(read_colour(self.mask_colour)))

    @property
    def is_masked(self) -> bool:
        return self.mask is not None or self.mask_colour is not None


@dataclass(frozen=True, kw_only=True)
class TiledOptions:
    """Image to image of a large picture: enlarge by `scale`, repaint in tiles of the request's size, and blend these.

    `method` is "lanczos" or an upscaler's name. Neighbouring tiles share at least `overlap` pixels.
    """

    scale: float = 2.0
    method: str = "lanczos"
    overlap: int = 64

    def __post_init__(self) -> None:
        check_range("tiled upscale", self.scale, 1.0, 8.0)
        check_range("tile overlap", self.overlap, 0, MAX_SIZE // 2)
        check_pixel_method(self.method)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size for a start picture of width x height pixels. Raises OptionsError if it is too large."""
        wide, high = (round(side * self.scale) for side in (width, height))
        check_range("the enlarged picture's width", wide, 1, MAX_SIZE)
        check_range("the enlarged picture's height", high, 1, MAX_SIZE)
        return wide, high


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """A request for `number` x `batch` pictures; picture i uses seed + i.

    If width and height are left out, the checkpoint's native size is used. A missing seed, or -1, means a random seed.
    Raises OptionsError with a readable sentence when a value is invalid.
    """

    prompt: str
    negative_prompt: str = ""
    styles: tuple[str, ...] = ()  # names in styles.csv
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
    refiner: str | None = None  # by name or path
    refiner_start: float | None = None  # the share of the steps before it; None: REFINER_START
    text_encoders: tuple[str, ...] = ()  # by name or path, in place of the checkpoint's own
    prediction: str | None = None  # "epsilon", "v" or "edm"; None: detect it
    loras: tuple[LoraChoice, ...] = ()
    controls: tuple[ControlChoice, ...] = ()
    init: InitImage | None = None
    hires: HiresOptions | None = None
    tiled: TiledOptions | None = None
    stable_fast: str = "off"
    stable_fast_precision: str = "off"
    stable_fast_skip: int = 0
    only: int | None = field(default=None)  # keeps only this picture of the batch, to reproduce a single one

    def __post_init__(self) -> None:
        _check_length("prompt", self.prompt)
        _check_length("negative prompt", self.negative_prompt)
        check_size("width", self.width)
        check_size("height", self.height)
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
    def denoise(self) -> float | None:
        """The one strength that other programs know: of the first pass that changes a picture it is given."""
        if self.hires is not None and (self.init is None or self.init.denoise == 0):
            return self.hires.denoise
        return self.init.denoise if self.init else None

    @property
    def pictures(self) -> list[Path]:
        """Lists the picture files used in the request."""
        init = [self.init.image, *([self.init.mask] if self.init.mask else [])] if self.init else []
        return [*(control.image for control in self.controls), *init]

    def resolved(self, native_size: int) -> ResolvedOptions:
        """Returns the same request with the size, the seed and the refiner's start filled in."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        decided: dict[str, Any] = {
            "width": self.width or native_size,
            "height": self.height or native_size,
            "seed": random_seed() if self.seed is None else self.seed,
        }
        if self.refiner is not None and self.refiner_start is None:
            decided["refiner_start"] = REFINER_START
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


def check_pixel_method(method: str) -> None:
    """Raises OptionsError for a method that enlarges latents; any other name is that of a file."""
    if method in LATENT_METHODS:
        raise OptionsError(f"{method} enlarges latents, not pictures: choose lanczos or an upscaler.")


def _check_length(name: str, text: str) -> None:
    if len(text) > MAX_PROMPT:
        raise OptionsError(f"The {name} has {len(text)} characters: {MAX_PROMPT} is the most.")
