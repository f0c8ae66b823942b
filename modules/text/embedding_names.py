"""Lists the textual inversions, and checks that a prompt does not use unknown ones (no torch)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders
from modules.text.prompt import Mention, MentionFinder, parse_prompt

_KIND = "embeddings"


class EmbeddingNames:
    """The embeddings in the model folders; prompts cannot refer to files elsewhere."""

    def __init__(self, folders: ModelFolders) -> None:
        self._folders = folders

    def aliases(self) -> dict[str, str]:
        """Maps each accepted lower-case spelling (with or without sub-folder or extension) to the listed file name."""
        # If two files differ only in their extension, prefer safetensors, which is safer and faster.
        names = sorted(self._folders.list(_KIND), key=lambda name: not name.lower().endswith(".safetensors"))
        exact = {name.lower(): name for name in names}
        for name in names:
            stem = name.lower().rpartition(".")[0]
            exact.setdefault(stem, name)
        for name in names:
            exact.setdefault(Path(name).stem.lower(), name)
        return exact

    def find(self, name: str) -> Path:
        """Returns the file of an embedding. Raises ModelFileError if the embedding does not exist."""
        aliases = self.aliases()
        listed = aliases.get(name.lower())
        if listed is None:
            raise ModelFileError(self._not_found(name, aliases))
        return self._folders.find(_KIND, listed)

    def check(self, texts: Iterable[str], emphasis: str) -> None:
        """Raises ModelFileError if a prompt mentions an embedding that does not exist."""
        aliases = self.aliases()
        finder = MentionFinder(aliases)
        parsed = chain.from_iterable(parse_prompt(text, emphasis) for text in texts)
        for segment in chain.from_iterable(parsed):
            for piece in finder.split(segment.text):
                if isinstance(piece, Mention) and piece.name.lower() not in aliases:
                    raise ModelFileError(self._not_found(piece.name, aliases))

    def _not_found(self, name: str, aliases: dict[str, str]) -> str:
        home = self._folders.folders(_KIND)[0]
        if not aliases:
            return f'There is no embedding named "{name}": {home} holds none; put the file there or change the prompt.'
        near = difflib.get_close_matches(name.lower(), aliases, n=3, cutoff=0.4)
        shown = list(dict.fromkeys(aliases[alias] for alias in near or aliases))[:5]
        label = "nearest" if near else "available"
        return f'There is no embedding named "{name}" in {home}; {label}: {", ".join(shown)}.'
