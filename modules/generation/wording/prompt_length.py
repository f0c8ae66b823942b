"""Counts the tokens of a request's prompts as the engine will read them, without loading a model (no torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from modules.catalog.headers import read_header, shapes_in
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.wording.spelled_out import first_picture, wildcard_files, with_styles
from modules.text.chunks import CHUNK
from modules.text.embedding_names import EmbeddingNames
from modules.text.prompt import A1111_MODES, extract_loras
from modules.text.prompt_schedule import PassSteps, read_schedule
from modules.text.token_count import ChunkCount, count_tokens
from modules.text.wildcards import varies

_ANY_NAME = re.compile("")
PROMPTS = ("prompt", "negative_prompt")


@dataclass(frozen=True, kw_only=True)
class PromptLength:
    """The chunks of a prompt, and how many tokens fit in all of them; `one_of_several` if its choices vary."""

    chunks: list[ChunkCount]
    one_of_several: bool

    @property
    def tokens(self) -> int:
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def room(self) -> int:
        return CHUNK * len(self.chunks)


def prompt_length(options: GenerationOptions, folders: ModelFolders, name: str) -> PromptLength:
    """Counts the chunks of the prompt `name` of the first picture; of texts that follow one another, the longest.

    Raises OptionsError or ModelFileError for a style, wildcard, tag or LoRA that cannot be used.
    """
    alone = replace(with_styles(options, folders), **{other: "" for other in PROMPTS if other != name})
    wildcard_files(alone, folders)
    final, tags = extract_loras(getattr(first_picture(alone, folders), name))
    if name == "prompt":  # a LoRA in the negative prompt has no effect
        for tag in tags:
            folders.find("loras", tag.name)
    vectors = embedding_lengths(folders)
    counts = [count_tokens(text, options.emphasis, vectors) for text in _texts(final, options)]
    several = options.seed is None and varies(getattr(alone, name))
    return max((PromptLength(chunks=chunks, one_of_several=several) for chunks in counts), key=lambda it: it.tokens)


def _texts(text: str, options: GenerationOptions) -> list[str]:
    """Returns the texts of all steps and of all parts joined by AND."""
    if options.emphasis not in A1111_MODES:
        return [text]
    schedule = read_schedule(text, "", PassSteps(steps=options.steps))
    return list(dict.fromkeys(text for part in schedule.parts for text in part))


def embedding_lengths(folders: ModelFolders) -> dict[str, int]:
    """Returns the number of vectors of each embedding by its accepted spellings; 1 if its header does not tell."""
    names = EmbeddingNames(folders)
    return {alias: _vectors(names.find(alias)) for alias in names.aliases()}


def _vectors(path: Path) -> int:
    facts = path.stat()
    return _vectors_in(path, facts.st_mtime_ns, facts.st_size)


@cache
def _vectors_in(path: Path, changed: int, size: int) -> int:  # the last two tell a changed file
    tables = [shape for shape in shapes_in(read_header(path), _ANY_NAME) if len(shape) == 2]
    return tables[0][0] if tables else 1
