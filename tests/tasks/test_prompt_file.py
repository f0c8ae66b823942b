"""Tests prompt files from any program: every line is read or reports its error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.errors import OptionsError
from modules.tasks.prompt_file import read_prompt_file


def written(folder: Path, data: bytes) -> Path:
    path = folder / "prompts.txt"
    path.write_bytes(data)
    return path


def test_plain_lines_json_lines_comments_and_empty_lines(tmp_path: Path) -> None:
    text = '# mine\n\na cat, "quoted"\r\n  {"prompt": "a dog", "steps": 3}  \nred\u2028blue\n'
    lines = read_prompt_file(written(tmp_path, text.encode()))
    assert [(line.number, line.values, line.error) for line in lines] == [
        (3, {"prompt": 'a cat, "quoted"'}, None),
        (4, {"prompt": "a dog", "steps": 3}, None),
        (5, {"prompt": "red\u2028blue"}, None),
    ]


@pytest.mark.parametrize("text", ["{red|blue} cat", "{ 2$$a|b}", "{{a|b} c|__d__}"])
def test_a_prompt_may_begin_with_a_choice(tmp_path: Path, text: str) -> None:
    (line,) = read_prompt_file(written(tmp_path, text.encode()))
    assert (line.values, line.error) == ({"prompt": text}, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_editors_and_shells_write_is_read(tmp_path: Path, encoding: str) -> None:
    lines = read_prompt_file(written(tmp_path, "ein Bär\r\n猫".encode(encoding)))
    assert [line.values["prompt"] for line in lines] == ["ein Bär", "猫"]


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (b'{"prompt": "a"', "JSON"),
        (b'{"prompt": "a"} x', "JSON"),
        (b"{" * 100_000, "JSON"),
        (b'{"a|b"} cat', "JSON"),
        (b"{a} or b|c", "JSON"),
        (b"caf\xe9", "UTF-8"),
        (b"a\0b", "zero byte"),
    ],
)
def test_a_bad_line_is_reported_and_the_others_are_read(tmp_path: Path, bad: bytes, word: str) -> None:
    first, second, third = read_prompt_file(written(tmp_path, b"one\n" + bad + b"\nthree"))
    assert (first.values, third.values) == ({"prompt": "one"}, {"prompt": "three"})
    assert second.number == 2 and second.error is not None and word in second.error


@pytest.mark.parametrize("data", [b"", b"\n \n# only a comment\n"])
def test_a_file_without_prompts_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(OptionsError, match="no prompt in"):
        read_prompt_file(written(tmp_path, data))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"gone\.txt"):
        read_prompt_file(tmp_path / "gone.txt")
    with pytest.raises(OptionsError, match="cannot be read"):
        read_prompt_file(tmp_path)


def test_reading_needs_no_torch() -> None:
    code = "import sys, modules.tasks.prompt_file; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
