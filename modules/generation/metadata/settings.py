"""Reads a request's plain options from a recipe's fields, except those given on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from modules.core.errors import OptionsError
from modules.core.typed import Unreadable
from modules.generation.metadata.fields import Fields
from modules.generation.metadata.named_files import file_name, is_there
from modules.generation.metadata.packed import text_encoder_key
from modules.generation.metadata.problems import Problem
from modules.generation.option_table import PLAIN_OPTIONS, Option
from modules.generation.options import GenerationOptions
from modules.sampling.names import resolve_sampler, resolve_scheduler

Reader = Callable[[Fields], Any]
Check = Callable[[str, Any], object]

# A1111's names for the emphasis modes; its "Ignore" has no counterpart here.
EMPHASIS = {"original": "a1111", "no norm": "no_norm", "none": "off"}
PARSERS = {"fixed attention": "off"}  # SD.Next's name for treating brackets as plain text
SAMPLER = "euler"  # the default if no sampler is named
AUTOMATIC = "automatic"
NO_VAE = ("none", "automatic", "default")


def read_each(
    readers: Mapping[str, Reader],
    fields: Fields,
    given: Collection[str],
    check: Check,
    problems: list[Problem],
    prefix: str = "",
) -> dict[str, Any]:
    """Reads the values that exist, under the names of their readers.

    `check` is called with each value; its option is `prefix` + name. Unusable values are added to the problems.
    """
    values: dict[str, Any] = {}
    for name, reader in readers.items():
        option = prefix + name
        if option in given:
            continue
        try:
            value = reader(fields)
            if value is not None:
                check(name, value)
        except (Unreadable, OptionsError) as error:
            problems.append(Problem(reason=_sentence(str(error), option), option=option))
            continue
        if value is not None:
            values[name] = value
    return values


def _sentence(reason: str, option: str) -> str:
    """Turns the reason into a sentence, unless it already is one, as for an unknown name."""
    return reason if reason.endswith((".", "?")) else f"{option.replace('_', ' ')}: {reason}."


def _sampler(fields: Fields) -> str:
    return resolve_sampler(fields.text("Sampler") or SAMPLER).sampler


def _scheduler(fields: Fields) -> str:
    """Returns the schedule, whose name may follow the sampler's; by default the sampler's usual one."""
    name, label = fields.text("Schedule type", "Scheduler"), fields.text("Sampler") or SAMPLER
    if name is not None and name.casefold() != AUTOMATIC:
        return resolve_scheduler(name)
    try:
        choice = resolve_sampler(label)
    except OptionsError:  # _sampler reports this, unless another sampler is given
        return resolve_scheduler(AUTOMATIC)
    return choice.scheduler or resolve_scheduler(AUTOMATIC, sampler=choice.sampler)


def _emphasis(fields: Fields) -> str:
    name = fields.text("Emphasis") or PARSERS.get((fields.text("Parser") or "").casefold(), "a1111")
    return EMPHASIS.get(name.casefold(), name.casefold())


def _vae(fields: Fields) -> str | None:
    name = fields.text("VAE", "Module 1")
    return None if name is None or name.casefold() in NO_VAE else name


def _checkpoint(fields: Fields) -> str | None:
    """Returns the checkpoint's name; if it was given as a path, its file name (or the path, in our older pictures)."""
    path = fields.text("Model path")
    if path is None:
        return fields.text("Model", "Base model")
    return path if is_there(Path(path)) else file_name(path)


def _refiner(fields: Fields) -> str | None:
    """Returns the refiner's name, after which A1111 writes a hash in brackets."""
    name = re.sub(r" \[[0-9a-f]{10}\]$", "", fields.text("Refiner") or "")
    return None if name.casefold() in ("", "none") else name


def _refiner_start(fields: Fields) -> float | None:
    return None if _refiner(fields) is None else fields.number("Refiner switch at")


def _text_encoders(fields: Fields) -> tuple[str, ...] | None:
    names = [fields.text(text_encoder_key(position)) for position in range(2)]
    return tuple(name for name in names if name is not None) or None


def _seed(fields: Fields) -> int | None:
    """Returns the seed of the batch's first picture; -1 means unknown."""
    seed = fields.whole("Seed")
    if seed is None or seed == -1:
        return None
    return seed - (position(fields) or 0)


def position(fields: Fields) -> int | None:
    """Returns the picture's place in its batch, if it was made in one."""
    batch, place = fields.whole("Batch size"), fields.whole("Batch pos")
    return place if place is not None and (batch or 1) > 1 else None


def _batch(fields: Fields) -> int | None:
    return None if position(fields) is None else fields.whole("Batch size")


def _side(index: int) -> Reader:
    def read(fields: Fields) -> int | None:
        size = fields.size("Size")
        return None if size is None else size[index]

    return read


def _reader(option: Option) -> Reader:
    """Reads the option's key as the option's type."""

    def read(fields: Fields) -> Any:
        readers = {"whole": fields.whole, "number": fields.number, "text": fields.text}
        return readers[option.kind](option.key)

    return read


# Options that depend on several fields, or that other programs write differently.
SPECIAL: dict[str, Reader] = {
    "width": _side(0),
    "height": _side(1),
    "seed": _seed,
    "batch": _batch,
    "sampler": _sampler,
    "scheduler": _scheduler,
    "emphasis": _emphasis,
    "checkpoint": _checkpoint,
    "vae": _vae,
    "text_encoders": _text_encoders,
    "refiner": _refiner,
    "refiner_start": _refiner_start,
}
READERS: dict[str, Reader] = {option.name: _reader(option) for option in PLAIN_OPTIONS if option.key} | SPECIAL


def plain_options(fields: Fields, given: Collection[str], problems: list[Problem]) -> dict[str, Any]:
    def check(name: str, value: Any) -> None:
        GenerationOptions(prompt="", **{name: value})

    values = read_each(READERS, fields, given, check, problems)
    if not {"batch", "number"} & set(given) and (place := position(fields)) is not None:
        values["only"] = place
    return values
