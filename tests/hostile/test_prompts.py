"""Malicious prompts: every text becomes words or one sentence within seconds."""

from __future__ import annotations

import random
import time

import pytest

from modules.core.errors import OptionsError
from modules.generation.options import MAX_PROMPT
from modules.models.configs import CLIP_L
from modules.text.encode import PromptChunker
from modules.text.prompt import EMPHASIS_MODES, extract_loras, other_tags
from modules.text.prompt_schedule import PassSteps, changes, read_schedule
from modules.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer()
PIECES = (
    *"[]()<>:|\\,.",
    *("AND", "BREAK", "lora:", "lyco:", "hypernet:", "embedding:", "<lora:x:1>", "0.5", "1e999", "-", "9" * 40),
    *("cat", " ", "\n", "\x00", "\ud800", "😀", "\u202e", "<|endoftext|>", "猫", ":0.5]", "[a:b:0.5]", "[a|b]"),
)


def read(prompt: str, mode: str) -> None:
    """Does everything that happens to a prompt before the network."""
    text, _ = extract_loras(prompt)
    other_tags(prompt)
    changes(text)
    chunker = PromptChunker(TOKENIZER, CLIP_L, mode, None)
    for said in read_schedule(text, text, PassSteps(steps=7, earlier=3)).texts:
        if "embedding:" not in said:
            assert all(len(chunk) <= 75 for chunk in chunker.chunks(said))


@pytest.mark.parametrize("seed", range(4))
def test_random_prompts_are_read_or_refused_with_a_sentence(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(500):
        prompt = "".join(dice.choices(PIECES, k=dice.randrange(40)))
        try:
            read(prompt, dice.choice(EMPHASIS_MODES))
        except OptionsError as error:
            assert str(error).isprintable() and len(str(error)) < 500


def test_words_are_kept_inside_any_brackets() -> None:
    """A text without a switch stays exactly the same in every step."""
    dice = random.Random(9)
    for _ in range(2000):
        prompt = "".join(dice.choices([*"[]()\\:ab ", "AND"], k=dice.randrange(20)))
        schedule = read_schedule("", prompt, PassSteps(steps=3))
        assert schedule.negative == (prompt,) * 3


LONGEST = {
    "open": "[" * MAX_PROMPT,
    "crossed": "(" * (MAX_PROMPT // 2) + "]" * (MAX_PROMPT // 2),
    "nested": "[" * 3333 + "a:b:3]" * 3333 + "c",
    "in turn": "[" * 4000 + "a|b]" * 4000,
    "empty": "[|]" * 6666,
    "switches": "[a:b:1]" * 2857,
    "fields": "[a" + ":b" * 9999,
    "digits": f"[a:b:{'9' * 19_990}]",
    "escapes": "\\" * MAX_PROMPT,
    "tags": "<lora:" * 3333,
}


@pytest.mark.parametrize("kind", LONGEST)
def test_the_longest_prompts_are_read_in_seconds(kind: str) -> None:
    started = time.perf_counter()
    assert len(read_schedule(LONGEST[kind], "", PassSteps(steps=200)).negative) == 200
    assert time.perf_counter() - started < 20
