"""The command line: arguments -> GenerationOptions -> pictures on disk, their paths on standard output."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.progress import CancelToken
from modules.generation.options import (
    CONTROL_MODES,
    EMPHASIS_MODES,
    LATENT_METHODS,
    MASK_CONTENTS,
    PIXEL_METHODS,
    RESIZE_MODES,
    STABLE_FAST_LEVELS,
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
    default_of,
)

if TYPE_CHECKING:
    from modules.generation.progress import Progress

ArgumentGroup = Any  # argparse does not name the type of its groups in public
LISTS = ("checkpoints", "vae", "loras", "embeddings", "controlnet", "upscalers", "samplers", "schedulers")

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


def build_parser() -> argparse.ArgumentParser:
    """Options not given stay absent, so that `--from-image` keeps the picture's own."""
    parser = Parser(
        prog="pipeline.sh",
        description="Make pictures from text with Stable Diffusion 1.x and 2.x checkpoints.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
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
    group.add_argument("--prediction", choices=("epsilon", "v"), help="override what is detected")
    group.add_argument("--lora", action="append", metavar="NAME[:STRENGTH[:TEXT]]", help="may be given more than once")


def add_extra_passes(group: ArgumentGroup) -> None:
    group.add_argument("--hires-fix", action="store_true", help="a second pass at a larger size")
    group.add_argument("--hires-scale", type=float, metavar="X", help="1 to 4 (default 2)")
    group.add_argument("--hires-size", metavar="WxH", help="target size instead of a scale")
    group.add_argument(
        "--hires-method", metavar="NAME", help=f"{', '.join(PIXEL_METHODS + LATENT_METHODS)}, or an upscaler file"
    )
    group.add_argument("--hires-steps", type=int, help="0 = as in the first pass")
    group.add_argument("--hires-denoise", type=float, help="how much the second pass may change (default 0.5)")
    group.add_argument("--hires-cfg", type=float)
    group.add_argument("--hires-sampler")
    group.add_argument("--hires-scheduler")
    group.add_argument("--keep-first-pass", action="store_true", help="save the first pass too")
    group.add_argument("--img2img", type=Path, metavar="FILE", help="start from this picture")
    group.add_argument("--denoise", type=float, help="0 keeps the picture, 1 ignores it (default 0.75)")
    group.add_argument("--resize-mode", choices=RESIZE_MODES)
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
        help="accelerate; =LEVEL picks one of %(choices)s (plain flag: full)",
    )
    group.add_argument(
        "--prio-speed", action="store_true", help="the fastest settings: Stable-Fast and a one-evaluation sampler"
    )
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    group.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16 on a GPU, float32 on a CPU"
    )


def add_program_options(group: ArgumentGroup) -> None:
    group.add_argument("--output-dir", type=Path, metavar="DIR", help="default: output/")
    group.add_argument("--json", action="store_true", help="one JSON object on standard output instead of paths")
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    group.add_argument("--list", choices=LISTS, help="print the names that can be used, one a line")


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """What was given, and nothing else. A bare --stable-fast means full (its level is joined with '=')."""
    joined = ["--stable-fast=full" if argument == "--stable-fast" else argument for argument in argv]
    given = vars(build_parser().parse_intermixed_args(joined))
    return {name: value for name, value in given.items() if value is not None}


def build_options(given: dict[str, Any]) -> GenerationOptions:
    """Raises OptionsError for arguments that do not go together."""
    plain_names = set(GenerationOptions.__dataclass_fields__) - {"loras", "controls", "init", "hires", "only"}
    plain = {name: value for name, value in given.items() if name in plain_names}
    if "from_image" in given:
        from modules.generation.metadata import from_picture

        options = replace(from_picture(given["from_image"]), **plain)
    elif plain.get("prompt") is None:
        raise OptionsError('A prompt is needed, for example: pipeline.sh "a red circle on a blue background"')
    else:
        options = GenerationOptions(**plain)
    if given.get("prio_speed"):
        options = replace(options, **{"stable_fast": "full", "sampler": "dpmpp_2m"} | plain)
    return replace(options, **extra_passes(given, options))


def extra_passes(given: dict[str, Any], options: GenerationOptions) -> dict[str, Any]:
    """LoRA, HiresFix, image to image and ControlNet as far as they are given."""
    extra: dict[str, Any] = {}
    if "lora" in given:
        extra["loras"] = tuple(parse_lora(text) for text in given["lora"])
    if given.get("hires_fix") or any(name.startswith("hires_") for name in given):
        extra["hires"] = parse_hires(given, options.hires or HiresOptions())
    if "img2img" in given or options.init is not None:
        extra["init"] = parse_init(given, options.init)
    elif "denoise" in given or "mask" in given:
        raise OptionsError("--denoise and --mask need a picture to start from: give it with --img2img FILE.")
    if "control_net" in given or "control_image" in given:
        extra["controls"] = parse_controls(given)
    return extra


def parse_lora(text: str) -> LoraChoice:
    """NAME[:STRENGTH[:TEXT]]; a Windows path's drive colon is no separator."""
    name, numbers = text, []
    while len(numbers) < 2 and ":" in name:
        head, _, tail = name.rpartition(":")
        try:
            numbers.insert(0, float(tail))
        except ValueError:
            if tail.startswith(("\\", "/")):
                break
            raise OptionsError(f"--lora {text}: {tail!r} is no number; write NAME:0.8 or NAME:0.8:0.6.") from None
        name = head
    return LoraChoice(name=name, **dict(zip(("strength", "text_strength"), numbers, strict=False)))


def parse_hires(given: dict[str, Any], base: HiresOptions) -> HiresOptions:
    renamed = {name.removeprefix("hires_"): value for name, value in given.items() if name.startswith("hires_")}
    renamed.pop("fix", None)
    if "size" in renamed:
        renamed |= zip(("width", "height"), parse_size(renamed.pop("size")), strict=True)
    if given.get("keep_first_pass"):
        renamed["keep_first_pass"] = True
    return replace(base, **renamed)


def parse_size(text: str) -> tuple[int, int]:
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise OptionsError(f"--hires-size {text}: write it as WIDTHxHEIGHT, for example 1024x768.")
    return int(width), int(height)


def parse_init(given: dict[str, Any], base: InitImage | None) -> InitImage:
    names = {"img2img": "image", "resize_mode": "resize", "denoise": "denoise", "mask": "mask"}
    names |= {"mask_blur": "mask_blur", "mask_content": "mask_content"}
    values = {field: given[name] for name, field in names.items() if name in given}
    return replace(base, **values) if base else InitImage(**values)


def parse_controls(given: dict[str, Any]) -> tuple[ControlChoice, ...]:
    nets, images = given.get("control_net", []), given.get("control_image", [])
    if len(nets) != len(images):
        raise OptionsError(
            f"{len(nets)} --control-net but {len(images)} --control-image: give one picture for each net."
        )
    strengths = given.get("control_strength", [])
    ranges = [parse_range(text) for text in given.get("control_range", [])]
    controls = []
    for index, (net, image) in enumerate(zip(nets, images, strict=True)):
        start, end = ranges[index] if index < len(ranges) else (0.0, 1.0)
        controls.append(
            ControlChoice(
                name=net,
                image=image,
                strength=strengths[index] if index < len(strengths) else 1.0,
                start=start,
                end=end,
                mode=given.get("control_mode", "balanced"),
                preprocessor=given.get("control_preprocessor", "none"),
            )
        )
    return tuple(controls)


def parse_range(text: str) -> tuple[float, float]:
    start, _, end = text.partition(":")
    try:
        return float(start), float(end)
    except ValueError:
        raise OptionsError(f"--control-range {text}: write it as START:END, for example 0:0.6.") from None


def list_names(kind: str) -> list[str]:
    from modules.core.paths import ModelFolders
    from modules.sampling.names import SAMPLERS, SCHEDULERS

    if kind in ("samplers", "schedulers"):
        return list(SAMPLERS if kind == "samplers" else SCHEDULERS)
    return ModelFolders().list(kind)


@contextmanager
def stop_on_interrupt(cancel: CancelToken) -> Generator[None, None, None]:
    """The first Ctrl-C asks the sampler to stop after its step; the second one stops at once."""

    def handler(_signal: int, _frame: object) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class ProgressBar:
    """One tqdm bar a phase on standard error, with it/s and the time left."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._phase: tuple[str, int] | None = None

    def __call__(self, event: Progress) -> None:
        if self._quiet:
            return
        from tqdm import tqdm

        if self._phase != (event.phase, event.batch):
            self.close()
            label = event.phase if event.batches == 1 else f"{event.phase} {event.batch}/{event.batches}"
            self._bar = tqdm(total=event.steps, desc=label, unit="it", file=sys.stderr, leave=True)
            self._phase = (event.phase, event.batch)
        self._bar.update(event.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Makes and saves the pictures; returns what --json prints."""
    options = build_options(given)
    cancel, bar = CancelToken(), ProgressBar(quiet=given.get("quiet", False))
    as_json = given.get("json", False)
    with stop_on_interrupt(cancel):
        from modules.generation.output import OutputFolder
        from modules.generation.session import Session
        from modules.generation.text_to_image import generate

        output = OutputFolder(given.get("output_dir"))
        if given.get("reuse_seed"):
            options = replace(options, seed=output.last_seed())
        output.check_writable()
        session = Session(device=given.get("device"), dtype=given.get("dtype"))
        began = time.perf_counter()
        saved: list[dict[str, Any]] = []
        try:
            for picture in generate(options, session, on_progress=bar, cancel=cancel):
                path = output.save(picture)
                saved.append({"path": str(path), "seed": picture.seed})
                if not as_json:
                    bar.close()
                    print(path, flush=True)
        finally:
            bar.close()
    return {"images": saved, "seconds": round(time.perf_counter() - began, 3)}


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    given: dict[str, Any] = {}
    try:
        given = parse_arguments(sys.argv[1:] if argv is None else argv)
        if "list" in given:
            print("\n".join(list_names(given["list"])))
            return 0
        result = run(given)
    except LightDiffusionError as error:
        if given.get("json"):
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    if given.get("json"):
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
