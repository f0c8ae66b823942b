"""Counts the tokens of a prompt in each chunk of the text encoder (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from modules.text.chunks import CHUNK, chunk_prompt
from modules.text.prompt import Mention, MentionFinder
from modules.text.tokenizer import COMMA, EOS, Tokenizer

_SHOWN_WORDS = 3
_LOOKED_AT = 12  # tokens, which hold that many words unless they are long


@dataclass(frozen=True, kw_only=True)
class ChunkCount:
    """One chunk: its number of tokens, and its first words without punctuation."""

    tokens: int
    first_words: str


class _Counted(NamedTuple):
    """A position in a chunk; `embedding` names the file that its vector comes from."""

    id: int
    embedding: str = ""


def count_tokens(text: str, emphasis: str, vectors: Mapping[str, int] | None = None) -> list[ChunkCount]:
    """Counts as the engine would read this final text. At least one chunk, which may be empty.

    `vectors`: the number of vectors of each embedding by its accepted spellings, in lower case.
    """
    vectors, tokenizer = vectors or {}, Tokenizer()

    def read(piece: str | Mention, _: float) -> list[_Counted]:
        if isinstance(piece, Mention):
            return [_Counted(EOS, piece.name)] * vectors.get(piece.name.lower(), 1)
        return [_Counted(index) for index in tokenizer.encode(piece)]

    finder = MentionFinder({name: name for name in vectors})
    chunks = chunk_prompt(text, emphasis, CHUNK, finder=finder, read=read, is_comma=lambda token: token.id == COMMA)
    return [ChunkCount(tokens=len(chunk), first_words=_first_words(chunk, tokenizer)) for chunk in chunks]


def _first_words(chunk: list[_Counted], tokenizer: Tokenizer) -> str:
    runs = groupby(chunk[:_LOOKED_AT], key=lambda token: token.embedding)
    texts = [name or tokenizer.decode([token.id for token in run]) for name, run in runs]
    words = [word for word in " ".join(texts).split() if any(map(str.isalnum, word))]
    return " ".join(words[:_SHOWN_WORDS])
