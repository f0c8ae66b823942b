"""Defines the command line's arguments and parses them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any

from cli.listing import read_list
from cli.parser import Parser
from cli.report_file import read_report_path
from cli.synonyms import synonyms_in_words
from cli.table_file import read_export_path
from cli.values import number, one_of, path, read_tuning_seconds, sides, whole
from cli.words import join_levels, read_words, refuse_scale
from modules.controlnet.names import CONTROL_KINDS, PREPROCESSORS
from modules.generation.few_steps.presets import PRESETS
from modules.generation.option_table import PLAIN_OPTIONS, Section
from modules.generation.options import CONTROL_MODES, MASK_CONTENTS, MEMORY_MODES, default_of
from modules.images.methods import IMAGE_MODES, OWN_METHODS

ArgumentGroup = Any  # argparse has no public name for this type
READERS = {"whole": whole, "number": number, "text": str}

EXAMPLES = """examples:
  pipeline.sh "a red circle on a blue background" 128 128 1 1 --seed 7
  pipeline.sh "A beautiful sunset over the ocean" 1024 768 1 1 --stable-fast
  pipeline.sh "a portrait" 512 768 2 2 --lora style:0.8 --hires-fix --negative "blurry"
  pipeline.sh --from-image output/2026-11-23/00001-7.png
  pipeline.sh --upscale photos --upscale-by 4
names from other programs that work too:
"""


def build_parser() -> Parser:
    """Builds the parser. Omitted options stay absent, so `--from-image` keeps the picture's own values."""
    parser = Parser(
        prog="pipeline.sh",
        usage="pipeline.sh PROMPT [WIDTH] [HEIGHT] [NUMBER] [BATCH] [options]",
        description="Make pictures from text with Stable Diffusion 1.x, 2.x and XL checkpoints.",
        epilog=EXAMPLES + indented(synonyms_in_words()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add_words(parser.add_argument_group("the positional arguments, as options"))
    add_picture_options(parser.add_argument_group("picture"))
    add_model_options(parser.add_argument_group("models"))
    add_extra_passes(parser.add_argument_group("HiresFix, image to image, ControlNet"))
    add_upscale_options(parser.add_argument_group("enlarge pictures, without a prompt"))
    add_speed_options(parser.add_argument_group("speed"))
    add_cluster_options(parser.add_argument_group("several workers"))
    add_program_options(parser.add_argument_group("program"))
    return parser


def indented(text: str) -> str:
    return textwrap.fill(text, 120, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def add_words(group: ArgumentGroup) -> None:
    size = "pixels, a multiple of 8 (default: the model's native size)"
    group.add_argument("--prompt", metavar="TEXT", help="what the picture shows")
    group.add_argument("--width", type=whole, metavar="PIXELS", help=size)
    group.add_argument("--height", type=whole, metavar="PIXELS", help=size)
    add_plain_options(group, "size")


def add_plain_options(group: ArgumentGroup, section: Section) -> None:
    """Adds this section's rows of the option table, in the order of the table."""
    for option in PLAIN_OPTIONS:
        if option.section == section:
            default = default_of(option.name)
            shown = f"{default:g}" if isinstance(default, float) else default
            reading = one_of(option.choices) if option.choices else {"type": READERS[option.kind]}
            named = {"metavar": option.metavar} if option.metavar else {}
            group.add_argument(option.flag, **reading, **named, help=option.help.format(default=shown))


def add_picture_options(group: ArgumentGroup) -> None:
    group.add_argument(
        "--prompts", type=path, metavar="FILE", help="instead of the prompt: a file with one per line, plain or as JSON"
    )
    group.add_argument("--negative", dest="negative_prompt", metavar="TEXT", help="what the picture should not show")
    group.add_argument(
        "--style", action="append", metavar="NAME", help="add this style of styles.csv; may be given more than once"
    )
    group.add_argument(
        "--seed", type=whole, help="the first picture's seed; picture i uses seed + i (default: -1, random)"
    )
    group.add_argument("--reuse-seed", action="store_true", help="use the seed of the last run in this output folder")
    add_plain_options(group, "picture")
    group.add_argument(
        "--preset",
        **one_of(tuple(PRESETS)),
        help="fill in the sampler, scheduler, steps and cfg of this kind of few-step model where they are not given",
    )
    group.add_argument(
        "--from-image",
        action="append",
        type=path,
        metavar="PNG",
        help="make these pictures again; other options change them",
    )


def add_model_options(group: ArgumentGroup) -> None:
    add_plain_options(group, "files")
    group.add_argument(
        "--text-encoder",
        action="append",
        metavar="NAME",
        help="use this text encoder instead of the checkpoint's: a file, or a checkpoint with one; SDXL has two, "
        "CLIP-L and CLIP-G: give it twice, in any order",
    )
    add_plain_options(group, "model")
    group.add_argument("--lora", action="append", metavar="NAME[:STRENGTH[:TEXT]]", help="may be given more than once")


def add_extra_passes(group: ArgumentGroup) -> None:
    group.add_argument("--hires-fix", action="store_true", help="a second pass at a larger size")
    group.add_argument("--hires-scale", type=number, metavar="X", help="1 to 4 (default 2)")
    group.add_argument("--hires-size", metavar="WxH", help="target size instead of a scale")
    group.add_argument("--hires-method", metavar="NAME", help=f"{', '.join(OWN_METHODS)}, or an upscaler file")
    group.add_argument("--hires-steps", type=whole, help="0: as in the first pass")
    group.add_argument("--hires-denoise", type=number, help="how much the second pass may change (default 0.35)")
    group.add_argument("--hires-cfg", type=number)
    group.add_argument("--hires-sampler")
    group.add_argument("--hires-scheduler")
    group.add_argument("--keep-first-pass", action="store_true", help="save the first pass too")
    add_start_picture(group)
    group.add_argument("--control-net", action="append", metavar="NAME", help="may be given more than once")
    group.add_argument("--control-image", action="append", type=path, metavar="FILE", help="one for each --control-net")
    group.add_argument("--control-strength", action="append", type=number, metavar="X")
    group.add_argument(
        "--control-range", action="append", metavar="START:END", help="shares of the sampling, for example 0:0.6"
    )
    group.add_argument("--control-mode", **one_of(CONTROL_MODES))
    group.add_argument(
        "--control-preprocessor", **one_of(PREPROCESSORS), help="what to make of the control picture first"
    )
    group.add_argument(
        "--control-kind", action="append", **one_of(tuple(CONTROL_KINDS)), help="what it is, for union ControlNets only"
    )


def add_start_picture(group: ArgumentGroup) -> None:
    group.add_argument("--img2img", type=path, metavar="FILE", help="start from this picture")
    group.add_argument("--denoise", type=number, help="0 keeps the picture, 1 ignores it (default 0.75)")
    group.add_argument(
        "--resize-mode", **one_of(IMAGE_MODES), help="if its shape differs from the request's (default crop)"
    )
    group.add_argument("--mask", type=path, metavar="FILE", help="repaint only where this is white and not transparent")
    group.add_argument(
        "--mask-colour", metavar="COLOUR", help="repaint what is near this colour of the picture, for example ff0000"
    )
    group.add_argument(
        "--mask-tolerance",
        type=whole,
        metavar="N",
        help="how near: how much red, green and blue may differ, of 255 (default 30)",
    )
    group.add_argument("--mask-blur", type=whole, metavar="PIXELS", help="soften the mask's edge (default 4)")
    group.add_argument("--mask-content", **one_of(MASK_CONTENTS), help="initial content of the masked part")
    group.add_argument("--mask-invert", action="store_true", help="repaint where the mask is black instead")
    group.add_argument(
        "--only-masked",
        action="store_true",
        help="enlarge only the part round the mask to the request's size, repaint it, and put it back",
    )
    group.add_argument(
        "--mask-padding", type=whole, metavar="PIXELS", help="how far that part reaches beyond the mask (default 32)"
    )
    group.add_argument("--mask-soft", action="store_true", help="repaint grey in fewer steps than white (soft edge)")
    group.add_argument(
        "--each-part", action="store_true", help="repaint the mask's separate parts like that, one after the other"
    )
    group.add_argument(
        "--outpaint",
        type=sides,
        metavar="SIDE=PIXELS,...",
        help="extend the picture, for example left=64,right=64 (also top and bottom; multiples of 8)",
    )
    group.add_argument(
        "--outpaint-seam", type=whole, metavar="PIXELS", help="how far it repaints the old picture (default 32)"
    )
    group.add_argument(
        "--tiled-upscale",
        type=number,
        metavar="X",
        help="with --img2img: enlarge the picture X times (1 to 8), and repaint it in tiles of WIDTH x HEIGHT; use a "
        "low --denoise such as 0.3",
    )
    group.add_argument(
        "--tile-overlap", type=whole, metavar="PIXELS", help="how much neighbouring tiles share at least (default 64)"
    )
    group.add_argument(
        "--upscaler",
        metavar="NAME",
        help="for --tiled-upscale and --upscale: lanczos (default), or an upscaler file",
    )


def add_upscale_options(group: ArgumentGroup) -> None:
    group.add_argument(
        "--upscale",
        type=path,
        metavar="PATH",
        help="a picture, or a folder of pictures; the results are in upscaled/ in the output folder, and those that "
        "exist are skipped",
    )
    group.add_argument("--upscale-by", type=number, metavar="X", help="0.1 to 16 (default 2)")
    group.add_argument("--upscale-to", metavar="WxH", help="this size instead; what does not fit its shape is cut off")


def add_speed_options(group: ArgumentGroup) -> None:
    add_plain_options(group, "speed")
    group.add_argument(
        "--prio-speed", action="store_true", help="the fastest settings: Stable-Fast and a one-evaluation sampler"
    )
    group.add_argument("--compare", action="store_true", help="one picture with and without Stable-Fast, side by side")
    group.add_argument(
        "--stable-fast-report",
        type=read_report_path,
        metavar="FILE",
        help="with --stable-fast: write a report of what ran (text, or JSON for a name ending in .json; - is "
        "standard output)",
    )
    group.add_argument(
        "--stable-fast-tune",
        type=read_tuning_seconds,
        metavar="SECONDS",
        help="on an NVIDIA GPU: time the kernels for this long first, for each network at each new size; the results "
        "stay on disk",
    )
    group.add_argument(
        "--stable-fast-table",
        type=path,
        metavar="FILE",
        help="with --stable-fast: use the fastest kernels in this table, measured on another GPU of this kind",
    )
    group.add_argument(
        "--stable-fast-export",
        type=read_export_path,
        metavar="FILE",
        help="write a table of what --stable-fast-tune has found on this GPU (FILE.json), and exit",
    )
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    group.add_argument(
        "--dtype", **one_of(("float16", "bfloat16", "float32")), help="default: float16 on a GPU, float32 on a CPU"
    )
    group.add_argument(
        "--memory",
        **one_of(MEMORY_MODES),
        help="on an NVIDIA GPU: whether text encoder and VAE leave it after their work; auto (default): if it is short "
        "of memory; high: never; low: always",
    )


def add_cluster_options(group: ArgumentGroup) -> None:
    """Adds the options about workers, which run.sh has too."""
    group.add_argument(
        "--cluster",
        metavar="PLACE",
        default=argparse.SUPPRESS,
        help="share the work (of --prompts, or of the page) among workers: local (one for each GPU of this machine), "
        "auto (the Ray cluster that runs here), or the HOST:PORT of one; see docs/cluster.md",
    )
    group.add_argument(
        "--workers",
        type=whole,
        metavar="N",
        default=argparse.SUPPRESS,
        help="how many workers (default: one for each GPU; without a GPU 2, which share the CPU)",
    )


def add_program_options(group: ArgumentGroup) -> None:
    group.add_argument("--output-dir", type=path, metavar="DIR", help="default: output/")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of paths")
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    group.add_argument(
        "--doctor",
        action="store_true",
        help="report what Stable-Fast can do here, test its kernels, and exit",
    )
    group.add_argument("--list", metavar="KIND", type=read_list, help="print the available names, one per line")
    group.add_argument("--version", action="store_true", help="print the version")


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Parses the given arguments, without defaults. Raises OptionsError."""
    refuse_scale(argv)
    given, words = build_parser().given(join_levels(argv))
    return given | read_words(words, given)
