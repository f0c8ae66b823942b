"""Reads img2img: the start picture, its mask and the script SD upscale, beside what it shares with txt2img."""

from __future__ import annotations

from pathlib import Path

from api.a1111.controlnet import read_controls
from api.a1111.hires import method_of
from api.a1111.lists import upscalers
from api.a1111.refusals import IMAGE_UNSUPPORTED, check_all
from api.a1111.text_to_image import read_common
from api.desk import Desk
from api.fields import Fields
from api.pictures import keep_picture
from modules.core.errors import OptionsError
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions, InitImage, TiledOptions

RESIZE = ("stretch", "crop", "fill")  # by A1111's numbers
CONTENTS = ("fill", "original", "noise", "empty")
DEFAULT_DENOISE, DEFAULT_BLUR, DEFAULT_OVERLAP = 0.75, 4, 64
SD_UPSCALE = "sd upscale"
SCRIPT_ARGUMENTS = ("a text that is not read", "overlap", "upscaler", "scale")


def read_image_to_image(desk: Desk, asked: Fields, tray: OutputFolder) -> GenerationOptions:
    """Returns the request. Raises OptionsError or ModelFileError."""
    check_all(IMAGE_UNSUPPORTED, asked.values)
    tiled = read_tiled(desk, asked)
    plain = read_common(desk, asked if tiled is None else Fields({**asked.values, "script_name": None}))
    pictures = asked.datas("init_images")
    if len(pictures) != 1:
        raise OptionsError(f"init_images holds {len(pictures)} pictures: send exactly one, as base64.")
    image = keep_picture(pictures[0], "init_images", tray)
    mask = keep_picture(asked.data("mask"), "mask", tray) if asked.data("mask") else None
    controls = read_controls(desk, asked, tray, (plain["width"], plain["height"]), image)
    return GenerationOptions(**plain, init=read_init(asked, image, mask), controls=controls, tiled=tiled)


def read_init(asked: Fields, image: Path, mask: Path | None) -> InitImage:
    return InitImage(
        image=image,
        mask=mask,
        denoise=asked.number("denoising_strength", DEFAULT_DENOISE),
        resize=numbered(asked, "resize_mode", RESIZE, 0),
        mask_blur=asked.whole("mask_blur", DEFAULT_BLUR),
        mask_content=numbered(asked, "inpainting_fill", CONTENTS, 0),
        mask_invert=asked.flag("inpainting_mask_invert"),
        only_masked=mask is not None and asked.flag("inpaint_full_res", default=True),
        mask_padding=asked.whole("inpaint_full_res_padding", 0),
    )


def read_tiled(desk: Desk, asked: Fields) -> TiledOptions | None:
    """Reads the script SD upscale; None for any other script. The tiles have the request's width and height."""
    if asked.text("script_name").casefold() != SD_UPSCALE:
        return None
    given = asked.list("script_args")
    if len(given) != len(SCRIPT_ARGUMENTS):
        raise OptionsError(f"script_args of SD upscale holds {len(given)} values: {', '.join(SCRIPT_ARGUMENTS)}.")
    arguments = Fields(dict(zip(SCRIPT_ARGUMENTS, given, strict=True)))
    listed = [row["name"] for row in upscalers(desk)]
    name = arguments.values["upscaler"]
    if isinstance(name, int) and name in range(len(listed)):
        name = listed[name]
    return TiledOptions(
        overlap=arguments.whole("overlap", DEFAULT_OVERLAP),
        method=method_of(Fields({"upscaler": name}).text("upscaler") or "None"),
        scale=arguments.number("scale", 2.0),
    )


def numbered(asked: Fields, name: str, words: tuple[str, ...], default: int) -> str:
    """Returns our word for A1111's number."""
    number = asked.whole(name, default)
    if number not in range(len(words)):
        listed = ", ".join(f"{place} ({word})" for place, word in enumerate(words))
        raise OptionsError(f"{name} {number} is not supported here: choose one of {listed}.")
    return words[number]
