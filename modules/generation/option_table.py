"""Defines the plain options, one row each, for the command line, metadata, page and grids (no torch).

A row describes everything about an option except its type and default, which come from GenerationOptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from modules.core.errors import OptionsError, quoted, shortened
from modules.core.sizes import read_crop, read_original_size
from modules.text.prompt import EMPHASIS_MODES

MAX_STEPS = 1000
STABLE_FAST_LEVELS = ("off", "graph", "fused", "full")
STABLE_FAST_PRECISIONS = ("off", "fp16-accumulate", "fp8", "int8", "fp8-weights", "int8-weights")
MOST_SKIPPED = 3  # steps after each full one; more were judged to change pictures too much
SHARE = (0.0, 1.0)
REFINER_START = 0.8  # as SDXL's authors and all programs advise

Kind = Literal["whole", "number", "text"]
Section = Literal["size", "picture", "files", "model", "speed"]
Page = Literal["form", "more", "own"]


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option with one value.

    `name` is the field's name in GenerationOptions, the page's form and the API. On the command line it has dashes.
    """

    name: str
    label: str  # on the page and in grids
    kind: Kind
    section: Section  # where --help shows it
    help: str  # {default} stands for the default value
    metavar: str | None = None
    aliases: tuple[str, ...] = ()  # other programs' names for it on the command line
    limits: tuple[float, float] | None = None  # the smallest and the largest value
    choices: tuple[str, ...] = ()
    reads: Callable[[str], object] | None = None  # raises OptionsError for a text that cannot be used
    title: str = ""  # for messages, if it differs from the name
    key: str = ""  # its name in a picture's metadata; if empty, write.py and settings.py handle the option
    always_written: bool = False  # in the metadata, even with its default value
    page: Page = "form"  # "form": ui/panels/form places it; "more": under More; "own": ui/requests.py reads it
    empty: str = ""  # what the page's list or text field shows when the option is left out
    axis: bool = True  # whether a grid can vary it

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> None:
        """Raises OptionsError for a value outside the limits or choices; None means "left out"."""
        if value is None:
            return
        title = self.title or self.name.replace("_", " ")
        if self.limits is not None:
            check_range(title, value, *self.limits)
        if self.choices:
            check_choice(title, value, self.choices)
        if self.reads is not None:
            self.reads(value)


# The command line's names of the fields of a tiled upscale.
TILED_OPTIONS = {"scale": "tiled_upscale", "overlap": "tile_overlap", "method": "upscaler"}

PLAIN_OPTIONS: tuple[Option, ...] = (
    Option(
        name="number",
        label="Number",
        kind="whole",
        section="size",
        help="how many batches (default {default})",
        metavar="N",
        aliases=("-n",),
        limits=(1, 10_000),
        title="number of images",
        axis=False,
    ),
    Option(
        name="batch",
        label="Batch size",
        kind="whole",
        section="size",
        help="pictures made together in a batch (default {default})",
        metavar="N",
        aliases=("--batch-size",),
        limits=(1, 64),
        title="batch size",
        axis=False,
    ),
    Option(
        name="original_size",
        label="Original size",
        kind="text",
        section="size",
        help="for SDXL: the size of the photograph it imitates (default: the picture's)",
        metavar="WxH",
        reads=read_original_size,
        key="Original size",
        page="more",
        empty="WxH (SDXL)",
    ),
    Option(
        name="crop",
        label="Crop",
        kind="text",
        section="size",
        help="for SDXL: the corner where that photograph was cropped (default: 0,0)",
        metavar="X,Y",
        reads=read_crop,
        key="Crop",
        page="more",
        empty="X,Y (SDXL)",
    ),
    Option(
        name="steps",
        label="Steps",
        kind="whole",
        section="picture",
        help="sampling steps (default {default})",
        limits=(1, MAX_STEPS),
        key="Steps",
        always_written=True,
    ),
    Option(
        name="cfg",
        label="CFG",
        kind="number",
        section="picture",
        help="guidance scale (default {default}); 1 switches guidance off",
        aliases=("--cfg-scale", "--guidance-scale"),
        limits=(0.0, 100.0),
        key="CFG scale",
        always_written=True,
    ),
    Option(
        name="rescale_cfg",
        label="CFG rescale",
        kind="number",
        section="picture",
        help="0 to 1: takes back the contrast that a high --cfg adds (default {default}, off)",
        metavar="X",
        aliases=("--guidance-rescale",),
        limits=SHARE,
        key="CFG rescale",
        page="more",
    ),
    Option(
        name="sampler",
        label="Sampler",
        kind="text",
        section="picture",
        help="see --list samplers (default {default})",
    ),
    Option(
        name="scheduler",
        label="Scheduler",
        kind="text",
        section="picture",
        help="see --list schedulers (default karras); ays is NVIDIA's for SD1.x and SDXL, and SD2.x takes SD1.x's",
    ),
    Option(
        name="clip_skip",
        label="Clip skip",
        kind="whole",
        section="picture",
        help="1 = last text layer, 2 = the one before, ...",
        limits=(-12, 12),
        key="Clip skip",
        always_written=True,
        page="more",
    ),
    Option(
        name="emphasis",
        label="Emphasis",
        kind="text",
        section="picture",
        help="how (word:1.2) is read (default {default})",
        choices=EMPHASIS_MODES,
        key="Emphasis",
        always_written=True,  # without this field, metadata is read as A1111 would read it
        page="more",
    ),
    Option(
        name="checkpoint",
        label="Checkpoint",
        kind="text",
        section="files",
        help="name or path (default: your first one, else the demo)",
        metavar="NAME",
        aliases=("--model",),
    ),
    Option(
        name="vae",
        label="VAE",
        kind="text",
        section="files",
        help="another autoencoder than the checkpoint's",
        metavar="NAME",
        key="VAE",
    ),
    Option(
        name="refiner",
        label="Refiner",
        kind="text",
        section="files",
        help="for SDXL: the refiner, which makes the last steps of the last pass",
        metavar="NAME",
        aliases=("--refiner-checkpoint",),
        key="Refiner",
        page="own",
    ),
    Option(
        name="refiner_start",
        label="Refiner start",
        kind="number",
        section="files",
        help=f"the share of the steps before the refiner goes on (default {REFINER_START})",
        metavar="X",
        aliases=("--refiner-switch-at",),
        limits=SHARE,
        key="Refiner switch at",
        page="own",
    ),
    Option(
        name="prediction",
        label="Prediction",
        kind="text",
        section="model",
        help="override what is detected",
        choices=("epsilon", "v", "edm"),
        key="Prediction",
        page="more",
        empty="Detect",
        axis=False,
    ),
    Option(
        name="stable_fast",
        label="Stable-Fast",
        kind="text",
        section="speed",
        help="accelerate; without a level: full",
        choices=STABLE_FAST_LEVELS,
        title="Stable-Fast level",
        key="Stable-Fast",
        page="own",
    ),
    Option(
        name="stable_fast_precision",
        label="Stable-Fast precision",
        kind="text",
        section="speed",
        help="fp8, int8: most products in eight bits; fp8-weights, int8-weights: half the UNet's memory; "
        "fp16-accumulate: sums in fp16, for GeForce cards. Each changes pictures a little",
        choices=STABLE_FAST_PRECISIONS,
        title="Stable-Fast precision",
        key="Stable-Fast precision",
        page="more",
    ),
    Option(
        name="stable_fast_skip",
        label="Stable-Fast skip",
        kind="whole",
        section="speed",
        help="run only the UNet's outer blocks in so many steps after each full one, which changes pictures",
        metavar="STEPS",
        limits=(0, MOST_SKIPPED),
        title="Stable-Fast skip",
        key="Stable-Fast skip",
        page="more",
    ),
)


def check_range(title: str, value: float, low: float, high: float) -> None:
    """Raises OptionsError for a value outside `low` to `high`."""
    if not low <= value <= high:  # also rejects NaN
        raise OptionsError(
            f"{title} {shortened(value)} is out of range: choose a value from {_short(low)} to {_short(high)}."
        )


def check_choice(title: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises OptionsError for a value that is not in `choices`."""
    if value not in choices:
        raise OptionsError(f"{title} {quoted(value)} is unknown: choose one of {', '.join(choices)}.")


def _short(value: float) -> str:
    """Formats whole numbers in full (even the largest seed), other numbers without trailing zeros."""
    return str(value) if isinstance(value, int) else f"{value:g}"
