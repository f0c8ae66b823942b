"""Splits prompts into chunks of the text encoder's length, as ComfyUI or A1111 does (no torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from modules.text.prompt import A1111_MODES, Mention, MentionFinder, parse_prompt

CHUNK = 75  # tokens; all encoders of SD1.x, SD2.x and SDXL read as many, besides the begin and end marks
# Default of A1111's setting "Prompt word wrap length limit".
COMMA_BACKTRACK = 20
# ComfyUI moves a short phrase to the next chunk instead of splitting it; A1111 does this for embeddings and at commas.
_COMFY_LONGEST_PHRASE = 7

T = TypeVar("T")


@dataclass(frozen=True)
class Unit(Generic[T]):
    """A run of tokens; `together` keeps them in one chunk if they fit."""

    tokens: Sequence[T]
    together: bool = False


def chunk_prompt(
    text: str,
    emphasis: str,
    size: int,
    *,
    finder: MentionFinder,
    read: Callable[[str | Mention, float], Sequence[T]],
    is_comma: Callable[[T], bool],
) -> list[list[T]]:
    """Splits a prompt into chunks of at most `size` tokens, at least one.

    `read` returns the tokens of plain words or of an embedding, which have this weight.
    """

    def unit(piece: str | Mention, weight: float) -> Unit[T]:
        tokens = read(piece, weight)
        short = len(tokens) <= _COMFY_LONGEST_PHRASE if emphasis == "comfy" else isinstance(piece, Mention)
        return Unit(tokens, together=short)

    sections = [
        [unit(piece, segment.weight) for segment in section for piece in finder.split(segment.text)]
        for section in parse_prompt(text, emphasis)
    ]
    return pack_chunks(sections, size, is_comma if emphasis in A1111_MODES else None)


def pack_chunks(
    sections: Iterable[Iterable[Unit[T]]], size: int, is_comma: Callable[[T], bool] | None = None
) -> list[list[T]]:
    """Fills chunks of at most `size` tokens; every section starts a new chunk, except an empty section at the end.

    With `is_comma`, if a full chunk has a comma in its last 20 tokens, the tokens after the comma move to the next
    chunk, as in A1111.
    """
    packer = _Packer(size, is_comma or (lambda token: False))
    for section in sections:
        packer.start_chunk([])
        for unit in section:
            packer.add(unit)
    chunks = packer.chunks
    return chunks[:-1] if len(chunks) > 1 and not chunks[-1] else chunks or [[]]


class _Packer(Generic[T]):
    def __init__(self, size: int, is_comma: Callable[[T], bool]) -> None:
        self.chunks: list[list[T]] = []
        self._size = size
        self._is_comma = is_comma
        self._after_comma: int | None = None  # where the text after the chunk's last comma starts

    def start_chunk(self, tokens: list[T]) -> None:
        self.chunks.append(tokens)
        self._after_comma = None

    def add(self, unit: Unit[T]) -> None:
        if unit.together and unit.tokens and len(unit.tokens) <= self._size:
            self._make_room(unit.tokens[0])
            if len(self.chunks[-1]) + len(unit.tokens) > self._size:
                self.start_chunk([])
        for token in unit.tokens:
            self._make_room(token)
            self.chunks[-1].append(token)
            if self._is_comma(token):
                self._after_comma = len(self.chunks[-1])

    def _make_room(self, token: T) -> None:
        """Starts a new chunk when the current one is full."""
        chunk, start = self.chunks[-1], self._after_comma
        if len(chunk) < self._size:
            return
        if start is None or self._is_comma(token) or self._size - (start - 1) > COMMA_BACKTRACK:
            self.start_chunk([])
            return
        moved = chunk[start:]
        del chunk[start:]
        self.start_chunk(moved)
