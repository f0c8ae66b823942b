"""From brackets to weights: hand-written cases, slow textbook parsers as oracles, hostile input."""

from __future__ import annotations

import random

import pytest

from modules.text.emphasis import MAX_WEIGHT, parse_a1111, parse_comfy

Pieces = list[tuple[str, float]]
N = 100_000


def letters(pieces: Pieces) -> list[tuple[str, float]]:
    """Returns one entry per character, so that it does not matter how pieces are cut."""
    return [(c, round(weight, 9)) for text, weight in pieces for c in text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [("plain", 1.0)]),
        ("", [("", 1.0)]),
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("((a))", [("a", 1.1 * 1.1)]),
        ("(a:1.5)", [("a", 1.5)]),
        ("(a (b:1.5):0.5)", [("a ", 0.5), ("b", 1.5)]),  # an inner number replaces the outer one
        ("((a):0.5)", [("a", 0.5 * 1.1)]),
        ("(a:b:-2)", [("a:b", -2.0)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(a:x)", [("a:x", 1.1)]),
        ("(a:nan)", [("a:nan", 1.1)]),
        (r"\(a\) (b\):1.3)", [("(a) ", 1.0), ("b)", 1.3)]),
        ("[a]", [("[a]", 1.0)]),
        ("(a (b) c", [("(a (b) c", 1.0)]),  # never closed: all literal
        ("a) b (c)", [("a) b (c)", 1.0)]),  # the stray bracket consumes the next one
        ("a) b (c (d))", [("a) b (c ", 1.0), ("d", 1.1), (")", 1.0)]),
        ("((a:1.2)", [("(a", 1.2)]),
        ("()", [("", 1.0)]),
    ],
)
def test_comfy(text: str, expected: Pieces) -> None:
    found = parse_comfy(text)
    assert letters(found) == letters(expected)
    assert found or expected == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [("plain", 1.0)]),
        ("", [("", 1.0)]),
        ("a (b) [c]", [("a ", 1.0), ("b", 1.1), (" ", 1.0), ("c", 1 / 1.1)]),
        ("((a))", [("a", 1.21)]),
        ("(a (b:1.5):0.5)", [("a ", 0.5), ("b", 0.75)]),
        ("(a:1.5", [("a:1.5", 1.1)]),  # never closed: extends to the end
        ("[a (b", [("a ", 1 / 1.1), ("b", 1.0)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
        (r"\(a\) \[b\] \\ c\d", [("(a) [b] \\ cd", 1.0)]),
        ("a) b] c:1.2)", [("a) b] c:1.2)", 1.0)]),
        ("(a: 1.2 )", [("a", 1.2)]),
        ("(a:+.5)", [("a", 0.5)]),
        ("[a:1.2]", [("a:1.2", 1 / 1.1)]),
    ],
)
def test_a1111(text: str, expected: Pieces) -> None:
    assert letters(parse_a1111(text)) == letters(expected)


def test_a1111_joins_pieces_of_one_weight() -> None:
    assert parse_a1111(r"smile \(art\)") == [("smile (art)", 1.0)]


def slow_comfy(text: str, weight: float = 1.0) -> Pieces:  # noqa: C901 - one rule in one place
    """ComfyUI's rule, by recursion: cut at depth 0, strip one pair, read a trailing number, repeat."""
    items, start, depth = [], 0, 0
    for i, c in enumerate(text):
        if c == "(":
            if depth == 0:
                items.append(text[start:i])
                start = i
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                items.append(text[start : i + 1])
                start = i + 1
    found: Pieces = []
    for item in [*items, text[start:]]:
        if len(item) >= 2 and item[0] == "(" and item[-1] == ")":
            body, inner = item[1:-1], weight * 1.1
            cut = body.rfind(":")
            if cut > 0:
                try:
                    body, inner = body[:cut], float(body[cut + 1 :])
                except ValueError:
                    body = item[1:-1]
            found += slow_comfy(body, inner)
        elif item:
            found.append((item, weight))
    return found


def slow_a1111(text: str) -> Pieces:  # noqa: C901 - one rule in one place
    """A1111's rule, by rewriting: each closing bracket multiplies the weight of every character since its partner."""
    out: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def scale(kind: str, factor: float) -> None:
        for entry in out[opened[kind].pop() :]:
            entry[1] *= factor

    i = 0
    while i < len(text):
        c = text[i]
        number = text[i + 1 : text.index(")", i)].strip() if c == ":" and ")" in text[i:] else ""
        if c == "\\":
            if text[i + 1 : i + 2] and text[i + 1] in "\\()[]":
                i += 1
                out.append([text[i], 1.0])
        elif c in "([":
            opened[c].append(len(out))
        elif opened["("] and number and set(number) <= set("+-.0123456789") and is_number(number):
            scale("(", float(number))
            i = text.index(")", i)
        elif c == ")" and opened["("]:
            scale("(", 1.1)
        elif c == "]" and opened["["]:
            scale("[", 1 / 1.1)
        else:
            out.append([c, 1.0])
        i += 1
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        while opened[kind]:
            scale(kind, factor)
    return [(c, weight) for c, weight in out]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def random_prompts(alphabet: list[str], count: int) -> list[str]:
    rng = random.Random(5)
    return ["".join(rng.choices(alphabet, k=rng.randrange(1, 16))) for _ in range(count)]


def test_comfy_equals_the_recursive_rule_on_random_brackets() -> None:
    for text in random_prompts(["(", "(", ")", ")", "a", "b ", ":1.5", ":", ":x", " "], 20_000):
        assert letters(parse_comfy(text)) == letters(slow_comfy(text)), text


def test_a1111_equals_the_rewriting_rule_on_random_brackets() -> None:
    for text in random_prompts(["(", "(", ")", ")", "[", "]", "a", "b ", ":1.5)", ":", ": .5 )", "\\", "\\("], 20_000):
        assert letters(parse_a1111(text)) == letters(slow_a1111(text)), text


HOSTILE = [
    "(" * N,
    ")" * N,
    "(" * N + "a" + ")" * N,
    "(" * 2 * N + "a" + ")" * N,
    "(" * N + "a" + ":1.1)" * N,
    "[" * N + "(" * N + "]" * N,
    "(a " * N,
    ":" * N + ")",
    "(a:" + " " * N + "x)",
    "(a:" + "1" * N + ")",
    "(" + ": " * N + "1)",
    "\\" * N,
    "(a)" * N,
]


@pytest.mark.timeout(120)  # linear parsers take a second; a quadratic parser would take hours
@pytest.mark.parametrize("parse", [parse_comfy, parse_a1111])
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:4]}...{text[-4:]}")
def test_hostile_brackets_end_soon_with_finite_weights(parse, text: str) -> None:  # noqa: ANN001
    assert all(abs(weight) <= MAX_WEIGHT for _, weight in parse(text))
