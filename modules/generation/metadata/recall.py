"""The request that made a picture, out of the texts inside it: ours, or another program's as far as it can be done."""

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
from modules.generation.metadata.recognise import read_recipe
from modules.generation.metadata.settings import plain_options
from modules.generation.options import GenerationOptions
from modules.images.metadata import texts_of
from modules.images.open import opened

# Options that replace the picture's whole; those of the extra passes change parts of them.
GIVEN = {field.name for field in dataclasses.fields(GenerationOptions)} - {"loras", "controls", "init", "hires", "only"}


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """`left_out` says in words what cannot be followed, `lacks` which pictures were not found, each with the option to
    give it: they stand in the options by their bare names. `models` are those that the picture names."""

    options: GenerationOptions
    left_out: str = ""
    lacks: tuple[str, ...] = ()
    models: tuple[NamedModel, ...] = ()


def recall_picture(
    path: Path,
    output: Path,
    *,
    given: Mapping[str, Any] | None = None,
    folders: ModelFolders | None = None,
) -> Recalled:
    """`given` holds options that replace the picture's own, which are then not read at all; `output` is the folder of
    our pictures, where those to start from are kept. Raises OptionsError for a picture without usable settings."""
    with opened(path) as image:
        image.load()
        texts = texts_of(image)
    return recall_texts(texts, given=given, folders=folders, places=places_of(path, output))


def recall_texts(
    texts: Mapping[str, str],
    *,
    given: Mapping[str, Any] | None = None,
    folders: ModelFolders | None = None,
    places: Sequence[Path] = (),
) -> Recalled:
    """The same for the texts alone; named pictures are looked for in `places`."""
    recipe, given = read_recipe(texts), given or {}
    fields = Fields(recipe.fields)
    if recipe.prompt is None and "prompt" not in given:
        raise OptionsError(f"{recipe.program} computed the prompt of this picture: give one in quotes.")
    plain: dict[str, Any] = {"prompt": recipe.prompt, "negative_prompt": recipe.negative} | plain_options(fields, given)
    plain |= {name: given[name] for name in GIVEN if name in given}
    choices = Choices(fields=fields, given=given, folders=folders or ModelFolders(), places=places)
    try:
        options = GenerationOptions(
            **plain, loras=choices.loras(), controls=choices.controls(), hires=choices.hires(), init=choices.init()
        )
    except Unreadable as error:
        raise OptionsError(f"The settings in this picture are damaged ({error}); enter them by hand.") from error
    return Recalled(
        options=options,
        left_out=in_words((*recipe.left_out, *choices.left_out, *left_out(recipe.fields))),
        lacks=tuple(choices.lacks),
        models=(*_plain_models(options, fields, given), *choices.models),
    )


def _plain_models(options: GenerationOptions, fields: Fields, given: Mapping[str, Any]) -> list[NamedModel]:
    models: list[NamedModel] = []
    if options.checkpoint and "checkpoint" not in given:
        models.append(NamedModel(kind="checkpoints", name=options.checkpoint, option="checkpoint"))
    if options.vae and "vae" not in given:
        hash_of_ours = fields.text("VAE hash") if "Torch" in fields else None
        models.append(NamedModel(kind="vae", name=options.vae, option="vae", hash=hash_of_ours))
    return models


def check_models(models: Sequence[NamedModel], folders: ModelFolders) -> list[str]:
    """Names of models that are other files than the picture's. Raises ModelFileError for one that is not there."""
    others: list[str] = []
    for model in models:
        try:
            path = find_model(folders, model.kind, model.name)
        except ModelFileError as error:
            flag = f"--{model.option.replace('_', '-')}"
            raise ModelFileError(f"{error} The picture was made with it: give another with {flag}.") from error
        if model.hash is not None and path.is_file() and fingerprint(path) != model.hash:
            others.append(quoted(path.name))
    return others
