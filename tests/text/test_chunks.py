"""Tests chunks of tokens: ComfyUI's phrases, and A1111's comma rule against a second implementation."""

from __future__ import annotations

import random

import pytest

from modules.models.configs import CLIP_L
from modules.text.chunks import Unit, pack_chunks
from modules.text.encode import PromptChunker
from modules.text.tokenizer import COMMA, Tokenizer

TOKENIZER = Tokenizer()


def units(*lengths: int, together: bool = False) -> list[Unit[int]]:
    return [Unit(list(range(n)), together=together) for n in lengths]


@pytest.mark.parametrize(
    ("sections", "lengths"),
    [
        ([[]], [0]),
        ([units(5)], [5]),
        ([units(10)], [10]),
        ([units(11)], [10, 1]),
        ([units(35)], [10, 10, 10, 5]),
        ([units(4), units(3)], [4, 3]),
        ([units(10), units(3)], [10, 3]),
        ([units(4), []], [4]),  # nothing after the last BREAK
        ([[], units(4)], [0, 4]),
        ([units(4), [], units(3)], [4, 0, 3]),
        ([units(8) + units(5, together=True)], [8, 5]),
        ([units(8) + units(2, together=True)], [10]),
        ([units(8) + units(12, together=True)], [10, 10]),  # fits in no chunk: cut
    ],
)
def test_chunks(sections: list[list[Unit[int]]], lengths: list[int]) -> None:
    chunks = pack_chunks(sections, 10)
    assert [len(chunk) for chunk in chunks] == lengths
    assert [t for chunk in chunks for t in chunk] == [
        t for section in sections for unit in section for t in unit.tokens
    ]


def test_no_sections_is_one_empty_chunk() -> None:
    assert pack_chunks([], 10) == [[]]


def lengths_in_a1111(text: str) -> list[int]:
    chunker = PromptChunker(TOKENIZER, CLIP_L, "a1111", None)
    return [len(chunk) for chunk in chunker.chunks(text)]


def words(count: int) -> str:
    return " ".join(["cat"] * count)


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        (f"{words(64)}, {words(30)}", [65, 30]),
        (f"{words(54)}, {words(21)}", [75, 1]),  # the comma is 21 tokens before the end: too far
        (f"{words(55)}, {words(20)}", [56, 20]),  # 20 tokens before the end: close enough
        (f"{words(74)}, {words(3)}", [75, 3]),
        (f"{words(75)}, {words(3)}", [75, 4]),  # a comma causes no move itself
        (f"{words(60)}, {words(14)}, {words(3)}", [75, 1 + 3]),
        (f"{words(70)}, dog BREAK {words(3)}", [72, 3]),
        (f"{words(70)}, (dog:1.2) (black cat:0.5) {words(5)}", [71, 8]),
        (f"{words(60)}, {words(70)}, {words(10)}", [61, 71, 10]),
        (f"{words(65)}, antidisestablishmentarianism {words(9)}", [66, 15]),
        (",".join(["cat"] * 100), [75, 75, 49]),  # every second token is a comma, so cuts move by at most one
    ],
)
def test_a_full_chunk_gives_what_follows_a_comma_to_the_next(text: str, lengths: list[int]) -> None:
    assert lengths_in_a1111(text) == lengths


def test_other_modes_have_no_such_rule() -> None:
    for mode in ("comfy", "off"):
        chunks = PromptChunker(TOKENIZER, CLIP_L, mode, None).chunks(f"{words(64)}, {words(30)}")
        assert [len(chunk) for chunk in chunks] == [75, 20]


def cut_by_the_rule(tokens: list[int], size: int, reach: int) -> list[list[int]]:
    """Applies A1111's rule by positions. Before a word that does not fit, the cut follows the last comma among the
    last `reach` tokens. Before a comma, or without a comma in reach, the cut is at the end of the chunk."""
    chunks, start = [], 0
    while len(tokens) - start > size:
        end = start + size
        near = [place + 1 for place in range(end - reach, end) if place >= start and tokens[place] == COMMA]
        cut = max(near) if near and tokens[end] != COMMA else end
        chunks.append(tokens[start:cut])
        start = cut
    return [*chunks, tokens[start:]]


@pytest.mark.parametrize("seed", range(20))
def test_chunks_are_cut_where_the_rule_says(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(20):
        often = dice.choice([0.02, 0.05, 0.3, 0.9])
        tokens = [COMMA if dice.random() < often else dice.randrange(300, 900) for _ in range(dice.randrange(400))]
        found = pack_chunks([[Unit([token]) for token in tokens]], 75, lambda token: token == COMMA)
        assert found == cut_by_the_rule(tokens, 75, 20)


@pytest.mark.parametrize(
    ("before", "vectors", "lengths"), [(70, 8, [71, 9]), (66, 8, [67, 9]), (60, 30, [61, 31]), (50, 24, [75, 1])]
)
def test_embeddings_stay_whole(before: int, vectors: int, lengths: list[int]) -> None:
    units = [Unit([0] * before), Unit([COMMA]), Unit([1] * vectors, together=True), Unit([0])]
    found = pack_chunks([units], 75, lambda token: token == COMMA)
    assert [len(chunk) for chunk in found] == lengths
