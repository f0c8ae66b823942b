"""Tests token counts against the chunks that the engine itself encodes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modules.models.configs import CLIP_L
from modules.text.encode import PromptChunker
from modules.text.prompt import EMPHASIS_MODES
from modules.text.token_count import count_tokens
from modules.text.tokenizer import Tokenizer

TEXTS = (
    "",
    "a (red:1.3) cat BREAK on [a] mat",
    "word one, " * 60,
    "an unbelievably long phrase without commas " * 20,
    "café 猫 🙂",
)


@pytest.mark.parametrize("mode", EMPHASIS_MODES)
@pytest.mark.parametrize("text", TEXTS)
def test_counts_are_those_of_the_engine(text: str, mode: str) -> None:
    engine = PromptChunker(Tokenizer(), CLIP_L, mode, None).chunks(text)
    assert [chunk.tokens for chunk in count_tokens(text, mode)] == [len(chunk) for chunk in engine]


def test_embeddings_count_with_their_vectors() -> None:
    (chunk,) = count_tokens("a Style_X cat", "comfy", {"style_x": 7})
    assert (chunk.tokens, chunk.first_words) == (9, "a style_x cat")


def test_each_chunk_says_how_it_starts() -> None:
    assert [chunk.first_words for chunk in count_tokens("a café here BREAK (two:1.2) dogs", "a1111")] == [
        "a café here",
        "two dogs",
    ]


def test_counting_needs_no_torch() -> None:
    code = "import sys, modules.generation.wording.prompt_length; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
