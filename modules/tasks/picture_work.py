"""Works on given pictures, without a prompt: enlarges them, or turns one into a ControlNet's hint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from modules.controlnet.preprocess import make_hint
from modules.core.errors import OptionsError, quoted
from modules.core.progress import CancelToken
from modules.gallery.picture import Picture
from modules.generation.progress import OnProgress, Progress
from modules.generation.session import Session
from modules.images.convert import to_pil
from modules.images.metadata import PNG_KEY, fields_line, parse_parameters, texts_of, with_fields
from modules.images.methods import PIXEL_METHODS
from modules.images.modes import to_rgb
from modules.images.open import open_image, opened
from modules.images.resize import resize_image
from modules.images.upscale import OnTile, Upscaler
from modules.tasks.task import DrawHint, Enlarge

OWN_TEXT = "postprocessing"  # A1111's name for it
MOST_TOLD = 5  # pictures that could not be enlarged, with the reason


def enlarge_all(task: Enlarge, session: Session, on_progress: OnProgress, cancel: CancelToken) -> Iterator[Picture]:
    """Yields each picture enlarged. Raises OptionsError at the end for the pictures that could not be."""
    failed: list[OptionsError] = []
    upscaler = upscaler_for(task, session)
    for number, path in enumerate(task.images, start=1):

        def on_tile(done: int, tiles: int, number: int = number) -> None:
            cancel.check()
            on_progress(Progress(phase="enlarging", batch=number, batches=len(task.images), step=done, steps=tiles))

        on_tile(0, 1)
        try:
            yield enlarge(path, task, upscaler, on_tile)
        except OptionsError as error:
            failed.append(error)
    if failed:
        raise failed[0] if len(task.images) == 1 else OptionsError(failure_words(failed, len(task.images)))


def failure_words(failed: list[OptionsError], pictures: int) -> str:
    more = f" And {len(failed) - MOST_TOLD} more." if len(failed) > MOST_TOLD else ""
    reasons = " ".join(str(error) for error in failed[:MOST_TOLD])
    return f"{len(failed)} of {pictures} pictures could not be enlarged. {reasons}{more}"


def upscaler_for(task: Enlarge, session: Session) -> Upscaler | None:
    return None if task.method in PIXEL_METHODS else session.upscaler(task.method)


def enlarge(path: Path, task: Enlarge, upscaler: Upscaler | None, on_tile: OnTile | None = None) -> Picture:
    """Returns the picture at the task's size, with its own texts; an upscaler's factor is corrected with Lanczos.

    The texts are kept as they are, and the generation text also says what has enlarged the picture.
    """
    image = to_rgb(open_image(path, path.name))
    try:
        width, height = task.target(image.size)
    except OptionsError as error:
        raise OptionsError(f"{quoted(path.name)} cannot have this size: {error}") from error
    larger = image if upscaler is None else upscaler(image, on_tile)
    if on_tile is not None:
        on_tile(1, 1)
    return with_source_texts(path, resize_image(larger, width, height, "crop"), task.told)


def with_source_texts(path: Path, image: Image.Image, told: Mapping[str, str]) -> Picture:
    """Returns the picture with all texts of its source, and the fields `told` as A1111 writes them.

    They go behind the settings; if there are none in A1111's format, they are a text of their own.
    """
    with opened(path, path.name) as source:
        source.load()
        texts = texts_of(source)
    made = texts.pop(PNG_KEY, "")
    seed = parse_parameters(made)[2].get("Seed", "")
    longer = with_fields(made, told)
    return Picture(
        image=image,
        seed=int(seed) if re.fullmatch("[0-9]{1,19}", seed) else 0,
        request_seed=None,
        parameters=made if longer is None else longer,
        texts={**texts, OWN_TEXT: fields_line(told)} if longer is None else texts,
    )


def draw_hint(task: DrawHint) -> Picture:
    """Returns what a ControlNet would see of the picture at the task's size."""
    hint = make_hint(open_image(task.image), task.width, task.height, task.preprocessor)
    return Picture(image=to_pil(hint * 2 - 1)[0], seed=0, request_seed=None, parameters="")
