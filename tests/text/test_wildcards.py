"""Choices in prompts: which braces are choices, shares by weight, the same seed, and plain text that stays plain."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from modules.core.errors import OptionsError
from modules.text.wildcards import chosen, escaped, varies, wildcard_names

FILES = {
    "colour": ["red", "blue"],
    "sub/thing": ["a __colour__ {cat|dog}"],
    "rare": ["0::never", "3::often", "seldom"],
    "circle": ["__circle__"],
    "many": ["__colour__ " * 600],
}


def lines(name: str) -> Sequence[str]:
    return FILES[name]


def outcomes(text: str, seeds: int = 200) -> Counter[str]:
    return Counter(chosen(text, seed, lines) for seed in range(seeds))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a|b}", {"a", "b"}),
        ("x {a|b} {c|d}", {"x a c", "x a d", "x b c", "x b d"}),
        ("{a|{b|c} d}", {"a", "b d", "c d"}),
        ("a {big |}cat", {"a big cat", "a cat"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{1-2$$ a | b }", {"a", "b", "a, b", "b, a"}),
        ("{0-1$$a|b}", {"", "a", "b"}),
        ("{9$$a|b}", {"a, b", "b, a"}),
        ("{0::a|b}", {"b"}),
        ("__colour__", {"red", "blue"}),
        ("{__colour__|c}", {"red", "blue", "c"}),
        ("__sub/thing__", {"a red cat", "a red dog", "a blue cat", "a blue dog"}),
        ("{[a|b]|c}", {"[a|b]", "c"}),  # the inner bar belongs to the alternation
        ("{a|{b}", {"{a|{b}"}),
        ("{a|{b|c}", {"{a|b", "{a|c"}),
        ("{<lora:x:1>|<lora:y:1>}", {"<lora:x:1>", "<lora:y:1>"}),
    ],
)
def test_what_a_prompt_can_become(text: str, expected: set[str]) -> None:
    assert set(outcomes(text)) == expected


@pytest.mark.parametrize(
    "text", ["{a}", "{}", "a|b", "[a|b]", "{a", "a}", "{a}|{b}", "_a_", "__", "__ a __", "(a:1.2)"]
)
def test_other_braces_and_bars_are_plain(text: str) -> None:
    assert not varies(text) and chosen(text, 1, lines) == text and escaped(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\{a|b\}", {"{a|b}"}),
        (r"\__colour__", {"__colour__"}),
        (r"{\{|\}}", {"{", "}"}),
        (r"\(a\) \[b\]", {r"\(a\) \[b\]"}),  # for the emphasis to read
    ],
)
def test_a_backslash_makes_plain_text(text: str, expected: set[str]) -> None:
    assert set(outcomes(text)) == expected


def test_shares_follow_the_weights() -> None:
    found = outcomes("{3::a|b}", 4000)
    assert abs(found["a"] / 4000 - 0.75) < 0.03  # four standard deviations
    found = outcomes("__rare__", 4000)
    assert set(found) == {"often", "seldom"} and abs(found["often"] / 4000 - 0.75) < 0.03


def test_a_seed_always_chooses_alike_and_choices_are_independent() -> None:
    assert all(
        chosen("{a|b|c} __colour__", seed, lines) == chosen("{a|b|c} __colour__", seed, lines) for seed in range(9)
    )
    pairs = outcomes("{a|b} {c|d}", 2000)
    assert all(abs(count / 2000 - 0.25) < 0.04 for count in pairs.values())


def test_names_are_found_in_choices_too() -> None:
    assert set(wildcard_names("__a__ {b|__c-d/e__ {f|__g_h__}} \\__i__")) == {"a", "c-d/e", "g_h"}


@pytest.mark.parametrize("text", ["__circle__", "__many__ __many__"])
def test_wildcards_that_never_end_are_a_sentence(text: str) -> None:
    with pytest.raises(OptionsError, match="do not end"):
        chosen(text, 1, lines)


def test_escaped_text_stays_as_it_is() -> None:
    numbers = random.Random(0)
    for _ in range(3000):
        text = "".join(numbers.choices("{}|_\\ab[]()$:1", k=numbers.randint(1, 14))).replace("[]", "{a|b}")
        assert chosen(escaped(text), 1, lines) == text, text


@pytest.mark.parametrize(
    "text", ["{" * 20_000, "{a|" * 20 + "x" * 19_000, "}" * 20_000, "__a" * 6000, "[{" * 9000 + "}]" * 9000]
)
def test_hostile_prompts_take_no_time(text: str) -> None:
    began = time.thread_time()  # servers of other tests may work beside this one
    varies(text)
    assert time.thread_time() - began < 1.0


def test_too_many_levels_are_a_sentence() -> None:
    with pytest.raises(OptionsError, match="inside each other"):
        varies("{a|" * 40 + "}" * 40)
