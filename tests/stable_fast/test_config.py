"""Levels as two flags, and limits set by the environment."""

from __future__ import annotations

import json

import pytest

from modules.core.errors import OptionsError
from modules.stable_fast.config import DISABLE_VARIABLE, LEVELS, Level, StableFastConfig, level_in_force

FACTS = {"off": (False, False), "graph": (False, True), "fused": (True, False), "full": (True, True)}


@pytest.mark.parametrize("word", FACTS)
def test_a_level_is_its_word_and_two_facts(word: str) -> None:
    level = Level(word)
    assert level == word and f"{level}" == word and json.dumps(level) == f'"{word}"' and {word: 1}[level] == 1
    assert (level.fused, level.captured) == FACTS[word] and level.is_off == (FACTS[word] == (False, False))
    assert (level.uncaptured.fused, level.uncaptured.captured) == (level.fused, False)


@pytest.mark.parametrize("asked", FACTS)
@pytest.mark.parametrize("allowed", [*FACTS, "0", "No", ""])
def test_the_environment_can_only_lower_a_level(asked: str, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, allowed)
    level, reason = level_in_force(asked)
    most = {"0": "off", "No": "off", "": "full"}.get(allowed, allowed)
    assert level == min(asked, most, key=list(FACTS).index)
    assert reason == ("" if level == asked else f"{DISABLE_VARIABLE}={most}")


def test_words_that_name_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="level 'fast' is not one of off, graph, fused, full"):
        StableFastConfig(level="fast")
    monkeypatch.setenv(DISABLE_VARIABLE, "fast")
    with pytest.raises(OptionsError, match=f"{DISABLE_VARIABLE}=fast is unknown"):
        level_in_force("full")
    assert level_in_force("off") == ("off", "")
    assert LEVELS == ("off", "graph", "fused", "full")
