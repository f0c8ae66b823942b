"""Reads OpenAI's fields: they become GenerationOptions, the form of the pictures, and how they are sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from api.desk import Desk
from api.fields import Fields
from api.openai_images.answers import Form
from modules.core.errors import OptionsError, quoted
from modules.generation.option_table import check_choice, check_range
from modules.generation.options import GenerationOptions, InitImage, default_of

MOST_PICTURES, MOST_PARTIAL = 10, 3  # OpenAI's
FORMATS = ("png", "jpeg", "webp")
RESPONSE_FORMATS = ("b64_json", "url")
OTHERS_MODELS = re.compile(r"(gpt-image|chatgpt-image|dall-e)[\w.-]*|auto|default|")  # they mean the default checkpoint
STEPS = {"low": 12, "medium": 20, "standard": 20, "high": 30, "hd": 30, "xhigh": 40, "max": 50}  # by `quality`
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "background": ("auto", "opaque"),
    "style": ("vivid", "natural"),
    "moderation": ("auto", "low"),
    "input_fidelity": ("low",),
}
NEEDS_OPENAI = ("svg", "frame_count", "frame_duration_ms", "complexity", "prompt_rewriter")


@dataclass(frozen=True, kw_only=True)
class Sending:
    """How the pictures are sent: in which form and, in a stream, after how many previews."""

    form: Form
    stream: bool
    previews: int


def read_sending(asked: Fields) -> Sending:
    """Raises OptionsError for a form that cannot be written."""
    output, response = asked.text("output_format", "png"), asked.text("response_format", "b64_json")
    check_choice("output_format", output, FORMATS)
    check_choice("response_format", response, RESPONSE_FORMATS)
    compression, previews = asked.whole("output_compression", 100), asked.whole("partial_images", 0)
    check_range("output_compression", compression, 0, 100)
    check_range("partial_images", previews, 0, MOST_PARTIAL)
    form = Form(format=output, compression=compression, as_url=response == "url")
    return Sending(form=form, stream=asked.flag("stream"), previews=previews)


def read_options(desk: Desk, asked: Fields, init: InitImage | None, size: tuple[int, int] | None) -> GenerationOptions:
    """Returns the request. `size` holds for a client that gives none. Raises OptionsError or ModelFileError."""
    check_neutral(asked)
    model, count = asked.text("model"), asked.whole("n", 1)
    check_range("n", count, 1, MOST_PICTURES)
    prompt = asked.text("prompt")
    if not prompt.strip():
        raise OptionsError("prompt is missing: say what the picture should show.")
    width, height = read_size(asked.text("size", "auto")) or size or (None, None)
    return GenerationOptions(
        prompt=prompt,
        negative_prompt=asked.text("negative_prompt"),
        width=width,
        height=height,
        number=count,
        seed=asked.whole("seed", -1),
        steps=asked.whole("steps", read_quality(asked.text("quality", "auto"))),
        cfg=asked.number("cfg_scale", default_of("cfg")),
        sampler=asked.text("sampler") or default_of("sampler"),
        scheduler=asked.text("scheduler") or None,
        checkpoint=desk.defaults.checkpoint if OTHERS_MODELS.fullmatch(model) else model,
        vae=desk.defaults.vae,
        clip_skip=desk.defaults.clip_skip,
        init=init,
    )


def check_neutral(asked: Fields) -> None:
    """Raises OptionsError for a field that would change the picture in a way that is not supported here."""
    for name, neutral in NEUTRAL.items():
        value = asked.text(name)
        if value and value not in neutral:
            raise OptionsError(f"{name} {quoted(value)} is not supported here: leave it out, or give {neutral[0]}.")
    for name in NEEDS_OPENAI:
        if asked.has(name):
            raise OptionsError(f"{name} is not supported here: leave it out.")


def read_size(text: str) -> tuple[int, int] | None:
    """Reads "512x768"; "auto" leaves the size to the checkpoint or to the given picture."""
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    if found is None:
        raise OptionsError(f"size {quoted(text)} cannot be read: write it as 512x768, or auto.")
    return int(found[1]), int(found[2])


def read_quality(text: str) -> int:
    """Returns the steps that a quality stands for."""
    if text == "auto":
        return default_of("steps")
    check_choice("quality", text, tuple(STEPS))
    return STEPS[text]
