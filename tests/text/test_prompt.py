"""LoRA tags, BREAK, mentions of embeddings, chunks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.errors import OptionsError
from modules.text.prompt import Mention, MentionFinder, extract_loras, other_tags, parse_emphasis, parse_prompt


def test_needs_no_torch() -> None:
    code = "import sys, modules.text.prompt; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_off_takes_everything_literally() -> None:
    text = r"(a:1.2) [b] \( BREAK"
    assert parse_prompt(text, "off") == [[(text, 1.0)]]


def test_no_norm_reads_brackets_as_a1111_does() -> None:
    assert parse_emphasis("[a] (b:2)", "no_norm") == parse_emphasis("[a] (b:2)", "a1111")


def test_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(OptionsError, match=r"'a111'.*Did you mean 'a1111'"):
        parse_emphasis("a", "a111")


@pytest.mark.parametrize("mode", ["comfy", "a1111", "no_norm"])
def test_break_cuts_sections_even_inside_brackets(mode: str) -> None:
    sections = parse_prompt("a (b BREAK c:1.5) breaks BREAKS", mode)
    assert [[(s.text.strip(), s.weight) for s in section if s.text.strip()] for section in sections] == [
        [("a", 1.0), ("b", 1.5)],
        [("c", 1.5), ("breaks BREAKS", 1.0)],
    ]


@pytest.mark.parametrize(
    ("text", "rest", "tags"),
    [
        ("a <lora:x:0.8> b", "a  b", [("x", 0.8, 0.8)]),
        ("<lora:x:0.8:0.6>", "", [("x", 0.8, 0.6)]),
        ("<lora:sub/my x>,<LORA:y:-1>", ",", [("sub/my x", 1.0, 1.0), ("y", -1.0, -1.0)]),
        ("<lora:x", "<lora:x", []),
        ("<b> (a:1.2)", "<b> (a:1.2)", []),
        ("<lyco:x:0.5>a<LyCO:y>", "a", [("x", 0.5, 0.5), ("y", 1.0, 1.0)]),
        ("a <hypernet:x:1><lora:y> b", "a  b", [("y", 1.0, 1.0)]),
    ],
)
def test_lora_tags(text: str, rest: str, tags: list[tuple[str, float, float]]) -> None:
    assert extract_loras(text) == (rest, tags)


@pytest.mark.parametrize("tag", ["<lora:>", "<lora:x:abc>", "<lora:x:1:2:3>", "<lora:x:nan>", "<lora:x:1:inf>"])
def test_unreadable_lora_tags_say_how_to_write_them(tag: str) -> None:
    with pytest.raises(OptionsError, match="write <lora:name:0.8>"):
        extract_loras(tag)


def test_tags_of_other_networks_are_reported_and_are_not_words() -> None:
    text = "a <hypernet:ink:0.5> <Wildcard:x> <lora:y> b"
    assert other_tags(text) == ["<hypernet:ink:0.5>", "<Wildcard:x>"]
    assert extract_loras(text)[0].split() == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    ["I <3 you", "a < b > c", "<|endoftext|>", "<3:>", "<b>", "<hypernet:", "x<:y>", "< lora:x>", "<a:>", "<:o>"],
)
def test_angle_brackets_of_plain_text_stay(text: str) -> None:
    assert extract_loras(text) == (text, [])
    assert other_tags(text) == []


def test_a_tag_between_halves_of_a_tag_does_not_make_a_third() -> None:
    assert extract_loras("<hyper<lora:x>net:y>")[0] == "<hypernet:y>"
    assert other_tags("<hyper<lora:x>net:y>") == []


@pytest.mark.timeout(120)
def test_hostile_tags_end_soon() -> None:
    assert extract_loras("<lora:" * 300_000)[1] == []
    assert other_tags("<a:" * 300_000 + "<" + "a" * 300_000) == []
    assert len(parse_prompt(" " * 300_000 + "BREAK " * 50_000, "comfy")) == 50_001


FINDER = MentionFinder({"bad": "bad.pt", "bad-hands-5": "bad-hands-5.pt", "sub/neg": "sub/neg.pt", "bad.pt": "bad.pt"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ugly, bad, x", ["ugly, ", Mention("bad.pt"), ", x"]),
        ("BAD-hands-5", [Mention("bad-hands-5.pt")]),
        ("badly bad-hands-6 x-bad bad/2 bad.v2", ["badly bad-hands-6 x-bad bad/2 bad.v2"]),
        ("embedding:bad.", [Mention("bad.pt"), "."]),
        ("embedding:bad.pt,b", [Mention("bad.pt"), ",b"]),
        ("a embedding:sub/neg embedding:bad b", ["a ", Mention("sub/neg.pt"), " ", Mention("bad.pt"), " b"]),
        ("embedding:who, b", [Mention("who"), ", b"]),
        ("embedding:bad-hands-6", [Mention("bad-hands-6")]),
        ("embedding:../../secret.pt", [Mention("../../secret.pt")]),
        ("an embedding: of words", ["an embedding: of words"]),
        ("", []),
    ],
)
def test_mentions(text: str, expected: list[str | Mention]) -> None:
    assert FINDER.split(text) == expected


def test_letters_that_only_fold_to_a_name_are_text() -> None:
    assert MentionFinder({"six": "six.pt"}).split("a \u017fix") == ["a \u017fix"]


def test_without_a_library_explicit_names_are_still_found() -> None:
    assert MentionFinder({}).split("bad embedding:bad") == ["bad ", Mention("bad")]
