"""Prompts that change between steps, against the documented examples of A1111's parser."""

from __future__ import annotations

from itertools import groupby

import pytest

from modules.core.errors import OptionsError
from modules.text.prompt_schedule import (
    MOST_PARTS,
    MOST_TEXTS,
    PassSteps,
    changes,
    plain_schedule,
    read_schedule,
    split_at_and,
    texts_by_step,
)

TEN = PassSteps(steps=10)


def runs(texts: tuple[str, ...]) -> list[tuple[int, str]]:
    """Returns (last step, text) of each run of equal texts, like A1111's schedules."""
    ends, step = [], 0
    for text, run in groupby(texts):
        step += len(list(run))
        ends.append((step, text))
    return ends


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(step, ["(b:1.1)", "a"][step % 2]) for step in range(1, 11)]),
        ("[fe|]male", [(step, ["male", "female"][step % 2]) for step in range(1, 11)]),
        ("[a|b|c]x", [(step, "cab"[step % 3] + "x") for step in range(1, 11)]),
        # From A1111's guide, not from the parser's examples.
        ("[a::0.3]", [(3, "a"), (10, "")]),
        ("[a::7]b", [(7, "ab"), (10, "b")]),
        ("([a:b:0.5]:1.2)", [(5, "(a:1.2)"), (10, "(b:1.2)")]),
        ("[(a:1.3):(b:0.8):4]", [(4, "(a:1.3)"), (10, "(b:0.8)")]),
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:1]", [(1, "a"), (10, "b")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-3]", [(10, "b")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:9e999]", [(10, "a")]),
        (r"[a\:b:c:4]", [(4, r"a\:b"), (10, "c")]),
        (r"\[a:b:0.5\]", [(10, r"\[a:b:0.5\]")]),
        ("[[a|b]:c:2]", [(1, "a"), (2, "b"), (10, "c")]),
        # Not schedules but plain words, or emphasis for the next parser.
        ("[a:b:x]", [(10, "[a:b:x]")]),
        ("[a:b:c:0.5]", [(10, "[a:b:c:0.5]")]),
        ("[a|b:0.5]", [(10, "[a|b:0.5]")]),
        ("(a:0.5) [a] a|b 16:9", [(10, "(a:0.5) [a] a|b 16:9")]),
        ("[x[a:b:x]:0.5]", [(10, "[x[a:b:x]:0.5]")]),
        ("[x [a:b:4] : y", [(4, "[x a : y"), (10, "[x b : y")]),
    ],
)
def test_the_text_of_each_step(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert runs(texts_by_step(prompt, TEN)) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a [b:.5] c", [(4, "a b c")]),  # the first pass covered this share
        ("a [b:1.5] c", [(2, "a  c"), (4, "a b c")]),
        ("a [b:12] c", [(2, "a  c"), (4, "a b c")]),  # 10 steps of the first pass and 2 of this one
        ("a [b:3] c", [(4, "a b c")]),
        ("[a|b]", [(1, "a"), (2, "b"), (3, "a"), (4, "b")]),
    ],
)
def test_a_second_pass_counts_on(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert runs(texts_by_step(prompt, PassSteps(steps=4, earlier=10))) == expected


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat:0.5", [("a cat:0.5", 1.0)]),
        ("a cat AND a dog", [("a cat ", 1.0), (" a dog", 1.0)]),
        ("a cat :1.2 AND a dog:-.5 AND 3:4:2.", [("a cat ", 1.2), (" a dog", -0.5), (" 3:4", 2.0)]),
        ("(a:0.5) AND b", [("(a:0.5) ", 1.0), (" b", 1.0)]),
        ("a AND", [("a ", 1.0), ("", 1.0)]),
        ("SAND and BAND", [("SAND and BAND", 1.0)]),
        ("a:1e9 AND b:x AND c:" + "9" * 400, [("a:1e9 ", 1.0), (" b:x ", 1.0), (" c", 100.0)]),
    ],
)
def test_parts_and_their_weights(prompt: str, parts: list[tuple[str, float]]) -> None:
    assert split_at_and(prompt) == parts


def test_a_schedule_holds_every_part_of_every_step() -> None:
    found = read_schedule("[a:b:1] AND c:2", "[x|y] AND", PassSteps(steps=2))
    assert found.weights == (1.0, 2.0)
    assert found.parts == (("a ", "b "), (" c", " c"))
    assert found.negative == ("x AND", "y AND")
    assert found.texts == ["a ", "b ", " c", "x AND", "y AND"]
    assert plain_schedule("[a|b] AND c", "x", PassSteps(steps=2)).texts == ["[a|b] AND c", "x"]


def test_brackets_that_change_from_step_to_step_are_seen() -> None:
    assert all(changes(text) for text in ("x [a:b:0.5]", "([a|b])", "[b:3]", "[a::2]"))
    assert not any(changes(text) for text in ("a AND b", "[a]", "(a:1.2)", "[a:b:x]", "[a", "a|b", r"\[a|b\]", ""))


def test_a_step_too_many_and_a_part_too_many_are_sentences() -> None:
    switches = "".join(f"[{step}:{step}]" for step in range(1, MOST_TEXTS + 2))
    with pytest.raises(OptionsError, match=f"limit is {MOST_TEXTS}"):
        read_schedule(switches, "", PassSteps(steps=1000))
    lists = ["[" + "|".join(f"{size}{index}" for index in range(size)) + "]" for size in (3, 5, 7, 11)]
    with pytest.raises(OptionsError, match="1000 different texts"):
        read_schedule(" AND ".join(lists), "", PassSteps(steps=1000))
    with pytest.raises(OptionsError, match=f"{MOST_PARTS + 1} parts joined by AND"):
        read_schedule(" AND ".join("a" * (MOST_PARTS + 1)), "", TEN)
