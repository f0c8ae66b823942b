"""The command line's arguments: what may be given, and what was."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cli.report_file import read_report_path
from modules.core.errors import OptionsError
from modules.core.paths import KINDS
from modules.generation.options import (
    CONTROL_MODES,
    EMPHASIS_MODES,
    MASK_CONTENTS,
    STABLE_FAST_LEVELS,
    default_of,
    read_tuning_seconds,
)
from modules.images.methods import IMAGE_MODES, OWN_METHODS

ArgumentGroup = Any  # argparse does not name the type of its groups in public
LISTS = (*KINDS, "samplers", "schedulers")

EXAMPLES = """examples:
  pipeline.sh "a red circle on a blue background" 128 128 1 1 --seed 7
  pipeline.sh "A beautiful sunset over the ocean" 1024 768 1 1 --stable-fast
  pipeline.sh "a portrait" 512 768 2 2 --lora style:0.8 --hires-fix --negative "blurry"
  pipeline.sh --from-image output/2026-11-23/00001-7.png
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, not after a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"{message}; see --help.")


def build_parser(*, prompt: bool = True) -> argparse.ArgumentParser:
    """Options not given stay absent, so that `--from-image` keeps the picture's own; no `prompt` with --prompts."""
    parser = Parser(
        prog="pipeline.sh",
        description="Make pictures from text with Stable Diffusion 1.x and 2.x checkpoints.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    if prompt:
        parser.add_argument("prompt", nargs="?", default=None, help="what the picture shows")
    parser.add_argument(
        "width", nargs="?", default=None, type=int, help="pixels, a multiple of 8 (default: the model's native size)"
    )
    parser.add_argument(
        "height", nargs="?", default=None, type=int, help="pixels, a multiple of 8 (default: the model's native size)"
    )
    parser.add_argument("number", nargs="?", default=None, type=int, help="how many batches (default 1)")
    parser.add_argument(
        "batch", nargs="?", default=None, type=int, help="pictures made together in a batch (default 1)"
    )
    add_picture_options(parser.add_argument_group("picture"))
    add_model_options(parser.add_argument_group("models"))
    add_extra_passes(parser.add_argument_group("HiresFix, image to image, ControlNet"))
    add_speed_options(parser.add_argument_group("speed"))
    add_program_options(parser.add_argument_group("program"))
    return parser


def add_picture_options(group: ArgumentGroup) -> None:
    group.add_argument(
        "--prompts", type=Path, metavar="FILE", help="in place of the prompt: one on each line, plain or as JSON"
    )
    group.add_argument("--negative", dest="negative_prompt", metavar="TEXT", help="what the picture must not show")
    group.add_argument("--seed", type=int, help="the first picture's seed; picture i uses seed + i (default: random)")
    group.add_argument("--reuse-seed", action="store_true", help="use the seed of the last run in this output folder")
    group.add_argument("--steps", type=int, help=f"sampling steps (default {default_of('steps')})")
    group.add_argument(
        "--cfg", type=float, help=f"guidance scale (default {default_of('cfg'):g}); 1 switches guidance off"
    )
    group.add_argument("--sampler", help=f"see --list samplers (default {default_of('sampler')})")
    group.add_argument("--scheduler", help="see --list schedulers (default karras)")
    group.add_argument("--clip-skip", type=int, help="1 = last text layer, 2 = the one before, ...")
    group.add_argument("--emphasis", choices=EMPHASIS_MODES, help="how (word:1.2) is read (default comfy)")
    group.add_argument(
        "--from-image", type=Path, metavar="PNG", help="make this picture again; other options change it"
    )


def add_model_options(group: ArgumentGroup) -> None:
    group.add_argument(
        "--checkpoint", "--model", metavar="NAME", help="name or path (default: your first one, else the demo)"
    )
    group.add_argument("--vae", metavar="NAME", help="another autoencoder than the checkpoint's")
    group.add_argument(
        "--text-encoder",
        action="append",
        metavar="NAME",
        help="another text encoder than the checkpoint's: a file, or a checkpoint that has one",
    )
    group.add_argument("--prediction", choices=("epsilon", "v"), help="override what is detected")
    group.add_argument("--lora", action="append", metavar="NAME[:STRENGTH[:TEXT]]", help="may be given more than once")


def add_extra_passes(group: ArgumentGroup) -> None:
    group.add_argument("--hires-fix", action="store_true", help="a second pass at a larger size")
    group.add_argument("--hires-scale", type=float, metavar="X", help="1 to 4 (default 2)")
    group.add_argument("--hires-size", metavar="WxH", help="target size instead of a scale")
    group.add_argument("--hires-method", metavar="NAME", help=f"{', '.join(OWN_METHODS)}, or an upscaler file")
    group.add_argument("--hires-steps", type=int, help="0 = as in the first pass")
    group.add_argument("--hires-denoise", type=float, help="how much the second pass may change (default 0.35)")
    group.add_argument("--hires-cfg", type=float)
    group.add_argument("--hires-sampler")
    group.add_argument("--hires-scheduler")
    group.add_argument("--keep-first-pass", action="store_true", help="save the first pass too")
    group.add_argument("--img2img", type=Path, metavar="FILE", help="start from this picture")
    group.add_argument("--denoise", type=float, help="0 keeps the picture, 1 ignores it (default 0.75)")
    group.add_argument("--resize-mode", choices=IMAGE_MODES)
    group.add_argument("--mask", type=Path, metavar="FILE", help="repaint only where this picture is white")
    group.add_argument("--mask-blur", type=int, metavar="PIXELS")
    group.add_argument("--mask-content", choices=MASK_CONTENTS, help="what the masked part starts from")
    group.add_argument("--control-net", action="append", metavar="NAME", help="may be given more than once")
    group.add_argument("--control-image", action="append", type=Path, metavar="FILE", help="one for each --control-net")
    group.add_argument("--control-strength", action="append", type=float, metavar="X")
    group.add_argument(
        "--control-range", action="append", metavar="START:END", help="shares of the sampling, for example 0:0.6"
    )
    group.add_argument("--control-mode", choices=CONTROL_MODES)
    group.add_argument("--control-preprocessor", choices=("none", "canny"))


def add_speed_options(group: ArgumentGroup) -> None:
    group.add_argument(
        "--stable-fast",
        choices=STABLE_FAST_LEVELS,
        help="accelerate; without a level: full",
    )
    group.add_argument(
        "--prio-speed", action="store_true", help="the fastest settings: Stable-Fast and a one-evaluation sampler"
    )
    group.add_argument("--compare", action="store_true", help="one picture with and without Stable-Fast, side by side")
    group.add_argument(
        "--stable-fast-report",
        type=read_report_path,
        metavar="FILE",
        help="with --stable-fast: write what was compiled and run (text, or JSON for a name ending in .json; - is "
        "standard output)",
    )
    group.add_argument(
        "--stable-fast-tune",
        type=read_tuning_seconds,
        metavar="SECONDS",
        help="on an NVIDIA GPU: first time the kernels for so long, for each network at each new size; what is found "
        "stays on disk",
    )
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    group.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16 on a GPU, float32 on a CPU"
    )


def add_program_options(group: ArgumentGroup) -> None:
    group.add_argument("--output-dir", type=Path, metavar="DIR", help="default: output/")
    group.add_argument("--json", action="store_true", help="one JSON object on standard output instead of paths")
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    group.add_argument(
        "--doctor", action="store_true", help="say what Stable-Fast can do on this machine, test its kernels, and end"
    )
    group.add_argument("--list", choices=LISTS, help="print the names that can be used, one a line")


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """What was given, and nothing else."""
    joined = with_levels_joined(argv)
    from_file = any(argument == "--prompts" or argument.startswith("--prompts=") for argument in joined)
    given = vars(build_parser(prompt=not from_file).parse_intermixed_args(joined))
    return {name: value for name, value in given.items() if value is not None}


def with_levels_joined(argv: Sequence[str]) -> list[str]:
    """--stable-fast with its level as one word: what stands behind it may be the prompt, so only a level is taken."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] == "--stable-fast" and argument in STABLE_FAST_LEVELS:
            joined[-1] = f"--stable-fast={argument}"
        else:
            joined.append(argument)
    return ["--stable-fast=full" if argument == "--stable-fast" else argument for argument in joined]
