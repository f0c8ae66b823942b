"""LoRA tags, BREAK, mentions of embeddings, chunks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.errors import OptionsError
from modules.text.prompt import Mention, MentionFinder, Unit, extract_loras, pack_chunks, parse_emphasis, parse_prompt


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
    ],
)
def test_lora_tags(text: str, rest: str, tags: list[tuple[str, float, float]]) -> None:
    assert extract_loras(text) == (rest, tags)


@pytest.mark.parametrize("tag", ["<lora:>", "<lora:x:abc>", "<lora:x:1:2:3>", "<lora:x:nan>", "<lora:x:1:inf>"])
def test_unreadable_lora_tags_say_how_to_write_them(tag: str) -> None:
    with pytest.raises(OptionsError, match="write <lora:name:0.8>"):
        extract_loras(tag)


@pytest.mark.timeout(120)
def test_hostile_tags_end_soon() -> None:
    assert extract_loras("<lora:" * 300_000)[1] == []
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
