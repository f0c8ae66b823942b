"""Turns the given arguments into requests: one, or one for each picture to make again."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.values import number, whole
from modules.core.errors import OptionsError, quoted
from modules.core.paths import ModelFolders
from modules.generation.few_steps.offers import with_preset
from modules.generation.option_table import TILED_OPTIONS
from modules.generation.options import (
    EXTRA_FIELDS,
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
    TiledOptions,
)

NO_REFINER = ("", "none")  # the second is A1111's word; they also take a picture's refiner back
MASK_OPTIONS = (
    *("mask", "mask_colour", "mask_tolerance", "mask_blur", "mask_content", "mask_invert"),
    *("only_masked", "mask_padding", "mask_soft", "each_part", "outpaint", "outpaint_seam"),
)
# Options of image to image, and the fields of InitImage that they set.
INIT_OPTIONS = {"denoise": "denoise", "resize_mode": "resize", **dict(zip(MASK_OPTIONS, MASK_OPTIONS, strict=True))}

# Options that have an effect with Stable-Fast only, and what each does.
OF_STABLE_FAST = {
    "tune": "times the kernels of",
    "table": "chooses the kernels of",
    "report": "reports on",
    "precision": "is about the products and weights of",
    "skip": "is about the steps of",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request and, with --from-image, the picture it came from."""

    options: GenerationOptions
    picture: Path | None = None


def build_requests(given: Mapping[str, Any]) -> list[Request]:
    """Builds one request, or one per --from-image. Raises OptionsError for conflicting arguments."""
    pictures = given.get("from_image")
    if not pictures:
        return [Request(options=build_options(given))]
    return [Request(options=build_options({**given, "from_image": one}), picture=one) for one in pictures]


def build_options(given: Mapping[str, Any]) -> GenerationOptions:
    """Builds one request; here `from_image` is a single picture. Raises OptionsError like build_requests."""
    if "refiner" in given and given["refiner"].casefold() in NO_REFINER:
        given = {"refiner_start": None, **given, "refiner": None}
    plain_names = GenerationOptions.__dataclass_fields__.keys() - EXTRA_FIELDS
    plain = {name: value for name, value in given.items() if name in plain_names}
    if "from_image" in given:
        from modules.generation.metadata.write import from_picture

        options = from_picture(given["from_image"], given)
    elif plain.get("prompt") is None:
        raise OptionsError('A prompt is needed, for example: pipeline.sh "a red circle on a blue background"')
    else:
        options = GenerationOptions(**plain)
    if given.get("prio_speed"):
        options = replace(options, **{"stable_fast": "full", "sampler": "dpmpp_2m"} | plain)
    options = replace(options, **extra_passes(given, options))
    if "outpaint" in given:  # overrides the size in the given picture's metadata
        options = replace(options, **{side: given.get(side) for side in ("width", "height")})
    if "preset" in given:
        options = with_preset(options, given["preset"], plain.keys(), ModelFolders())
    return options


def check_together(given: Mapping[str, Any], requests: Sequence[Request]) -> None:
    """Checks that the run's options fit the requests (none for a prompt file); raises OptionsError with the remedy."""
    if "seed" in given and "reuse_seed" in given:
        raise OptionsError("--seed and --reuse-seed both set the seed: remove one of them.")
    if {"upscale_by", "upscale_to"} & given.keys():
        raise OptionsError("--upscale-by and --upscale-to are for --upscale PATH: add it, or leave them out.")
    if given.get("compare"):
        if given.get("stable_fast") == "off":
            raise OptionsError("--compare with --stable-fast=off has nothing to compare: remove one of them.")
        if len(requests) > 1:
            raise OptionsError("--compare makes one picture each way: give only one --from-image.")
        if any(request.options.images > 1 and request.options.only is None for request in requests):
            raise OptionsError("--compare makes one picture each way: leave out number and batch, or set both to 1.")
    elif requests and all(request.options.stable_fast == "off" for request in requests):
        for name, what in OF_STABLE_FAST.items():
            if f"stable_fast_{name}" in given:
                raise OptionsError(f"--stable-fast-{name} {what} Stable-Fast: give --stable-fast too.")


def extra_passes(given: Mapping[str, Any], options: GenerationOptions) -> dict[str, Any]:
    """Reads the style, LoRA, HiresFix, image-to-image and ControlNet options from the given arguments."""
    extra: dict[str, Any] = {}
    if "lora" in given:
        extra["loras"] = tuple(lora_choice(text) for text in given["lora"])
    if "style" in given:
        extra["styles"] = tuple(given["style"])
    if "text_encoder" in given:
        extra["text_encoders"] = tuple(given["text_encoder"])
    if given.get("hires_fix") is False:  # a line of --prompts can switch it off
        extra["hires"] = None
    elif options.hires is not None or any(name.startswith("hires_") for name in given):
        extra["hires"] = parse_hires(given, options.hires or HiresOptions())
    elif given.get("keep_first_pass"):
        raise OptionsError("--keep-first-pass keeps the picture before HiresFix: add --hires-fix, or remove it.")
    if any(name.startswith("control_") for name in given):
        extra["controls"] = parse_controls(given, options.controls)
    return extra | start_picture(given, options)


def start_picture(given: Mapping[str, Any], options: GenerationOptions) -> dict[str, Any]:
    """Reads the options of image to image and of its tiled upscale."""
    found: dict[str, Any] = {}
    if "img2img" in given or options.init is not None:
        found["init"] = parse_init(given, options.init)
    elif INIT_OPTIONS.keys() & given.keys():
        raise OptionsError(
            "--denoise, --mask..., --only-masked, --each-part, --outpaint... and --resize-mode need a picture to start "
            "from: give it with --img2img FILE."
        )
    if "tiled_upscale" in given or options.tiled is not None:
        found["tiled"] = parse_tiled(given, options.tiled)
    elif {"tile_overlap", "upscaler"} & given.keys():
        raise OptionsError("--tile-overlap and --upscaler are for --tiled-upscale X: add it, or leave them out.")
    return found


def lora_choice(text: str) -> LoraChoice:
    """Reads NAME[:STRENGTH[:TEXT]]; the drive colon of a Windows path is not a separator."""
    name, numbers = text, []
    while len(numbers) < 2 and ":" in name:
        head, _, tail = name.rpartition(":")
        try:
            numbers.insert(0, number(tail))
        except ArgumentTypeError:
            if tail.startswith(("\\", "/")):
                break
            raise OptionsError(
                f"--lora {quoted(text)}: {quoted(tail)} is not a number; write NAME:0.8 or NAME:0.8:0.6."
            ) from None
        name = head
    return LoraChoice(name=name, **dict(zip(("strength", "text_strength"), numbers, strict=False)))


def parse_hires(given: Mapping[str, Any], base: HiresOptions) -> HiresOptions:
    renamed = {name.removeprefix("hires_"): value for name, value in given.items() if name.startswith("hires_")}
    renamed.pop("fix", None)
    if "size" in renamed:
        renamed |= zip(("width", "height"), parse_size(renamed.pop("size"), "--hires-size"), strict=True)
    elif "scale" in renamed:  # overrides the size in the given picture's metadata
        renamed |= {"width": None, "height": None}
    if "keep_first_pass" in given:
        renamed["keep_first_pass"] = given["keep_first_pass"]
    return replace(base, **renamed)


def parse_size(text: str, option: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return whole(width), whole(height)
    except ArgumentTypeError:
        raise OptionsError(f"{option} {quoted(text)}: write it as WIDTHxHEIGHT, for example 1024x768.") from None


def parse_init(given: Mapping[str, Any], base: InitImage | None) -> InitImage:
    names = {"img2img": "image", **INIT_OPTIONS}
    values = {field: given[name] for name, field in names.items() if name in given}
    init = replace(base, **values) if base else InitImage(**values)
    check_init_options(given, init)
    return init


def parse_tiled(given: Mapping[str, Any], base: TiledOptions | None) -> TiledOptions:
    values = {field: given[name] for field, name in TILED_OPTIONS.items() if name in given}
    return replace(base, **values) if base else TiledOptions(**values)


def check_init_options(given: Mapping[str, Any], init: InitImage) -> None:
    """Refuses options that would have no effect on this start picture. Raises OptionsError."""
    enlarges = init.only_masked or init.each_part
    masked, extended = init.is_masked, bool(init.outpaint)
    needs = {"mask_blur": masked, "mask_content": masked or extended, "mask_padding": masked or enlarges}
    for name, has_mask in needs.items():
        if name in given and not has_mask:
            option = f"--{name.replace('_', '-')}"
            raise OptionsError(f"{option} needs a mask: give one with --mask FILE, or leave it out.")
    if "mask_tolerance" in given and init.mask_colour is None:
        raise OptionsError("--mask-tolerance belongs to --mask-colour: add that option, or leave it out.")
    if "mask_padding" in given and not enlarges:
        raise OptionsError("--mask-padding widens the part of --only-masked: add that option, or leave it out.")
    keeping = {"only_masked": init.only_masked, "each_part": init.each_part, "tiled_upscale": "tiled_upscale" in given}
    for name, keeps in keeping.items():
        if "resize_mode" in given and keeps:
            raise OptionsError(f"With --{name.replace('_', '-')} the picture keeps its shape: leave out --resize-mode.")
    if "outpaint_seam" in given and not init.outpaint:
        raise OptionsError("--outpaint-seam belongs to --outpaint: add that option, or leave it out.")


def parse_controls(given: Mapping[str, Any], base: tuple[ControlChoice, ...]) -> tuple[ControlChoice, ...]:
    """Returns the given ControlNets, or else the picture's own, with the given settings."""
    if "control_net" in given or "control_image" in given and len(given["control_image"]) != len(base):
        base = parse_nets(given)
    elif "control_image" in given:  # for the ControlNets of the given picture
        base = tuple(replace(net, image=image) for net, image in zip(base, given["control_image"], strict=True))
    if not base:
        raise OptionsError("--control-... options need a net and its picture: give --control-net and --control-image.")
    for name in ("control_strength", "control_range", "control_kind"):
        if len(given.get(name, [])) > len(base):
            raise OptionsError(f"There are more --{name.replace('_', '-')} than --control-net; remove the extra ones.")
    alike = {name: given[f"control_{name}"] for name in ("mode", "preprocessor") if f"control_{name}" in given}
    changes: list[dict[str, Any]] = [dict(alike) for _ in base]
    for change, strength in zip(changes, given.get("control_strength", []), strict=False):
        change["strength"] = strength
    for change, kind in zip(changes, given.get("control_kind", []), strict=False):
        change["kind"] = kind
    for change, text in zip(changes, given.get("control_range", []), strict=False):
        change["start"], change["end"] = parse_range(text)
    return tuple(replace(control, **change) for control, change in zip(base, changes, strict=True))


def parse_nets(given: Mapping[str, Any]) -> tuple[ControlChoice, ...]:
    nets, images = given.get("control_net", []), given.get("control_image", [])
    if len(nets) != len(images):
        raise OptionsError(
            f"{len(nets)} --control-net but {len(images)} --control-image: give one picture for each net."
        )
    return tuple(ControlChoice(name=net, image=image) for net, image in zip(nets, images, strict=True))


def parse_range(text: str) -> tuple[float, float]:
    start, _, end = text.partition(":")
    try:
        return number(start), number(end)
    except ArgumentTypeError:
        raise OptionsError(f"--control-range {quoted(text)}: write it as START:END, for example 0:0.6.") from None
