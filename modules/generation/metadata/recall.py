"""Rebuilds a picture's request from our metadata, or as much of it as possible from another program's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.core.errors import ModelFileError, OptionsError, quoted
from modules.core.paths import ModelFolders
from modules.core.typed import Unreadable
from modules.generation.metadata.choices import Choices, NamedModel
from modules.generation.metadata.fields import Fields
from modules.generation.metadata.left_out import in_words, left_out
from modules.generation.metadata.named_files import find_model, fingerprint, places_of
from modules.generation.metadata.problems import Problem, as_error
from modules.generation.metadata.recognise import read_recipe
from modules.generation.metadata.settings import plain_options
from modules.generation.options import EXTRA_FIELDS, GenerationOptions
from modules.images.metadata import texts_of
from modules.images.open import opened
from modules.text.prompt import extract_loras
from modules.text.wildcards import escaped

# Options that replace a whole setting of the picture; the options of the extra passes change only parts of one.
GIVEN = {field.name for field in dataclasses.fields(GenerationOptions)} - EXTRA_FIELDS


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """A recalled request.

    `left_out` describes the unsupported settings. `lacks` lists the missing pictures, each with the option to give it;
    the options contain only their file names. `models` lists the models named in the metadata. If there are `problems`,
    the options contain defaults for the unusable values.
    """

    options: GenerationOptions
    left_out: str = ""
    lacks: tuple[str, ...] = ()
    models: tuple[NamedModel, ...] = ()
    problems: tuple[Problem, ...] = ()


def recall_picture(
    path: Path, output: Path, *, given: Mapping[str, Any] | None = None, folders: ModelFolders | None = None
) -> Recalled:
    """Works like `read_picture`, but raises one OptionsError that lists all problems."""
    return _usable(read_picture(path, output, given=given, folders=folders))


def recall_texts(
    texts: Mapping[str, str],
    *,
    given: Mapping[str, Any] | None = None,
    folders: ModelFolders | None = None,
    places: Sequence[Path] = (),
) -> Recalled:
    """Works like `recall_picture`, but with texts alone; searches `places` for the pictures named in the texts."""
    return _usable(read_texts(texts, given=given, folders=folders, places=places))


def _usable(recalled: Recalled) -> Recalled:
    if recalled.problems:
        raise as_error(recalled.problems)
    return recalled


def read_picture(
    path: Path,
    output: Path,
    *,
    given: Mapping[str, Any] | None = None,
    folders: ModelFolders | None = None,
) -> Recalled:
    """Reads a picture's request. Raises OptionsError for a picture without usable settings.

    `given` contains options that replace the picture's own settings, which are then not read. `output` is our folder of
    finished pictures, where start pictures are kept too.
    """
    with opened(path) as image:
        image.load()
        texts = texts_of(image)
    return read_texts(texts, given=given, folders=folders, places=places_of(path, output))


def read_texts(
    texts: Mapping[str, str],
    *,
    given: Mapping[str, Any] | None = None,
    folders: ModelFolders | None = None,
    places: Sequence[Path] = (),
) -> Recalled:
    """Works like `read_picture`, but with texts alone; searches `places` for the pictures named in the texts."""
    recipe, given = read_recipe(texts), given or {}
    fields = Fields(recipe.fields)
    problems: list[Problem] = []
    if recipe.prompt is None and "prompt" not in given:
        reason = f"{recipe.program} computed the prompt of this picture: give one in quotes."
        problems.append(Problem(reason=reason, option="prompt"))
    plain: dict[str, Any] = {"prompt": escaped(recipe.prompt or ""), "negative_prompt": escaped(recipe.negative)}
    plain |= plain_options(fields, given, problems)
    plain |= {name: given[name] for name in GIVEN if name in given}
    choices = Choices(problems=problems, fields=fields, given=given, folders=folders or ModelFolders(), places=places)
    try:
        options = GenerationOptions(
            **plain,
            loras=choices.loras(),
            controls=choices.controls(),
            hires=choices.hires(),
            tiled=choices.tiled(),
            init=choices.init(),
        )
    except Unreadable as error:
        raise OptionsError(f"The settings in this picture are damaged ({error}); enter them by hand.") from error
    return Recalled(
        options=options,
        left_out=in_words((*recipe.left_out, *choices.left_out, *left_out(recipe.fields))),
        lacks=tuple(choices.lacks),
        models=(*_plain_models(options, fields, given), *choices.models, *_tagged(options, given, problems)),
        problems=tuple(problems),
    )


def _plain_models(options: GenerationOptions, fields: Fields, given: Mapping[str, Any]) -> list[NamedModel]:
    models: list[NamedModel] = []
    if options.checkpoint and "checkpoint" not in given:
        models.append(NamedModel(kind="checkpoints", name=options.checkpoint, option="checkpoint"))
    if options.vae and "vae" not in given:
        hash_of_ours = fields.text("VAE hash") if "Torch" in fields else None
        models.append(NamedModel(kind="vae", name=options.vae, option="vae", hash=hash_of_ours))
    if options.refiner and "refiner" not in given:
        hash_of_ours = fields.text("Refiner hash") if "Torch" in fields else None
        models.append(NamedModel(kind="checkpoints", name=options.refiner, option="refiner", hash=hash_of_ours))
    return models


def _tagged(options: GenerationOptions, given: Mapping[str, Any], problems: list[Problem]) -> list[NamedModel]:
    """Returns the LoRAs in the prompt's tags, unless the prompt is replaced."""
    if "prompt" in given:
        return []
    try:
        return [NamedModel(kind="loras", name=tag.name, option="prompt") for tag in extract_loras(options.prompt)[1]]
    except OptionsError as error:
        problems.append(Problem(reason=str(error), option="prompt"))
        return []


def missing_models(models: Sequence[NamedModel], folders: ModelFolders) -> list[Problem]:
    """Returns a problem for each model that is not in its folder."""
    found = (_look_up(model, folders) for model in models)
    return [problem for problem in found if isinstance(problem, Problem)]


def check_models(models: Sequence[NamedModel], folders: ModelFolders, problems: list[Problem]) -> list[str]:
    """Returns the names of models whose files have changed; adds missing models to the problems."""
    others: list[str] = []
    for model in models:
        path = _look_up(model, folders)
        if isinstance(path, Problem):
            problems.append(path)
        elif model.hash is not None and path.is_file() and fingerprint(path) != model.hash:
            others.append(quoted(path.name))
    return others


def _look_up(model: NamedModel, folders: ModelFolders) -> Path | Problem:
    try:
        return find_model(folders, model.kind, model.name)
    except ModelFileError as error:
        return Problem(reason=str(error), option=model.option, kind=ModelFileError)
