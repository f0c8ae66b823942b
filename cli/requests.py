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
from modules.generation.options import (
    ControlChoice,
    GenerationOptions,
    HiresOptions,
    InitImage,
    LoraChoice,
)


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
    plain_names = set(GenerationOptions.__dataclass_fields__) - {"loras", "controls", "init", "hires", "only"}
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
    if "preset" in given:
        options = with_preset(options, given["preset"], plain.keys(), ModelFolders())
    return options


def check_together(given: Mapping[str, Any], requests: Sequence[Request]) -> None:
    """Checks that the run's options fit the requests (none for a prompt file); raises OptionsError with the remedy."""
    if "seed" in given and "reuse_seed" in given:
        raise OptionsError("--seed and --reuse-seed both set the seed: remove one of them.")
    if given.get("compare"):
        if given.get("stable_fast") == "off":
            raise OptionsError("--compare with --stable-fast=off has nothing to compare: remove one of them.")
        if len(requests) > 1:
            raise OptionsError("--compare makes one picture each way: give only one --from-image.")
        if any(request.options.images > 1 and request.options.only is None for request in requests):
            raise OptionsError("--compare makes one picture each way: leave out number and batch, or set both to 1.")
    elif requests and all(request.options.stable_fast == "off" for request in requests):
        for name, what in (("tune", "times the kernels of"), ("report", "reports on")):
            if f"stable_fast_{name}" in given:
                raise OptionsError(f"--stable-fast-{name} {what} Stable-Fast: give --stable-fast too.")


def extra_passes(given: Mapping[str, Any], options: GenerationOptions) -> dict[str, Any]:
    """Reads the LoRA, HiresFix, image-to-image and ControlNet options from the given arguments."""
    extra: dict[str, Any] = {}
    if "lora" in given:
        extra["loras"] = tuple(lora_choice(text) for text in given["lora"])
    if "text_encoder" in given:
        extra["text_encoders"] = tuple(given["text_encoder"])
    if given.get("hires_fix") is False:  # a line of --prompts can switch it off
        extra["hires"] = None
    elif options.hires is not None or any(name.startswith("hires_") for name in given):
        extra["hires"] = parse_hires(given, options.hires or HiresOptions())
    elif given.get("keep_first_pass"):
        raise OptionsError("--keep-first-pass keeps the picture before HiresFix: add --hires-fix, or remove it.")
    if "img2img" in given or options.init is not None:
        extra["init"] = parse_init(given, options.init)
    elif {"denoise", "mask", "mask_blur", "mask_content", "resize_mode"} & given.keys():
        raise OptionsError(
            "--denoise, --mask... and --resize-mode need a picture to start from: give it with --img2img FILE."
        )
    if any(name.startswith("control_") for name in given):
        extra["controls"] = parse_controls(given, options.controls)
    return extra


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
        renamed |= zip(("width", "height"), parse_size(renamed.pop("size")), strict=True)
    elif "scale" in renamed:  # overrides the size in the given picture's metadata
        renamed |= {"width": None, "height": None}
    if "keep_first_pass" in given:
        renamed["keep_first_pass"] = given["keep_first_pass"]
    return replace(base, **renamed)


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return whole(width), whole(height)
    except ArgumentTypeError:
        raise OptionsError(f"--hires-size {quoted(text)}: write it as WIDTHxHEIGHT, for example 1024x768.") from None


def parse_init(given: Mapping[str, Any], base: InitImage | None) -> InitImage:
    names = {"img2img": "image", "resize_mode": "resize", "denoise": "denoise", "mask": "mask"}
    names |= {"mask_blur": "mask_blur", "mask_content": "mask_content"}
    values = {field: given[name] for name, field in names.items() if name in given}
    return replace(base, **values) if base else InitImage(**values)


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
