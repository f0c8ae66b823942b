"""styles.csv as A1111 writes it, there and back; bad rows are named by their line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from modules.catalog.styles import Style, delete_styles, find_style, read_styles, save_style, write_styles
from modules.core.errors import OptionsError, OutputError
from modules.core.paths import ModelFolders

A1111 = (
    "\ufeffname,prompt,negative_prompt\r\n"
    'ink,"{prompt}, ink drawing, ""fine"" lines",colour\r\n'
    "\r\n"
    'two lines,"a\nb",\r\n'
    "plain, soft light,\r\n"
)


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    return ModelFolders(tmp_path)


def write(folders: ModelFolders, text: str | bytes) -> None:
    (folders.root / "styles.csv").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_file_of_a1111_is_read(folders: ModelFolders) -> None:
    write(folders, A1111)
    assert read_styles(folders) == [
        Style(name="ink", prompt='{prompt}, ink drawing, "fine" lines', negative_prompt="colour", line=2),
        Style(name="two lines", prompt="a\nb", line=4),
        Style(name="plain", prompt="soft light", line=6),
    ]


def test_older_columns_are_read(folders: ModelFolders) -> None:
    write(folders, "name,text\nink,drawing\n")
    assert read_styles(folders) == [Style(name="ink", prompt="drawing", line=2)]


def test_without_a_file_there_is_no_style(folders: ModelFolders) -> None:
    assert read_styles(folders) == []
    with pytest.raises(OptionsError, match='no style "ink"'):
        find_style(folders, "ink")


def test_styles_are_written_so_that_a1111_reads_them(folders: ModelFolders) -> None:
    styles = [Style(name="a, b", prompt='x "y"\nz', negative_prompt="{no}"), Style(name="é")]
    write_styles(folders, styles)
    with (folders.root / "styles.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))  # the reader that A1111 uses
    assert [(row["name"], row["prompt"], row["negative_prompt"]) for row in rows] == [
        (style.name, style.prompt, style.negative_prompt) for style in styles
    ]
    assert [style.name for style in read_styles(folders)] == ["a, b", "é"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").mkdir()
    with pytest.raises(OutputError, match="styles.csv cannot be written"):
        write_styles(ModelFolders(tmp_path), [Style(name="ink")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ink,drawing,\n", "line 1: the first row must be name,prompt,negative_prompt"),
        ("name,prompt,negative_prompt\nink,a,b,c\n", "line 2: this row has 4 fields, not 3: put quotes"),
        ('name,prompt,negative_prompt\na,"b\nc",\n,x,\n', "line 4: this row has no name"),
        ('name,prompt,negative_prompt\na,b,\nink,"never closed\n', "line 3: this row cannot be read"),
        ("name,prompt\n" + "a,b\n" + "c," + "x" * 200_000 + "\n", "line 3: this row cannot be read"),
        (b"name,prompt\na,\xff\n", "not UTF-8 text \\(line 2\\)"),
    ],
)
def test_bad_rows_are_named_by_their_line(folders: ModelFolders, text: str | bytes, words: str) -> None:
    write(folders, text)
    with pytest.raises(OptionsError, match=words) as error:
        read_styles(folders)
    assert len(str(error.value)) < 400


def test_an_unknown_style_names_the_nearest_and_two_of_a_name_are_doubtful(folders: ModelFolders) -> None:
    write(folders, "name,prompt\nwatercolour,a\nink,a\n---,\n---,\nink,b\n")
    with pytest.raises(OptionsError, match='nearest: "watercolour"'):
        find_style(folders, "watercolor")
    with pytest.raises(OptionsError, match="lines 3 and 6"):
        find_style(folders, "ink")
    assert find_style(folders, "---").prompt == ""  # a divider, as in many such files


def test_saving_adds_a_style_or_replaces_it_in_place(tmp_path: Path) -> None:
    folders = ModelFolders(tmp_path)
    for name, prompt in (("ink", "ink"), ("photo", "photo"), ("ink", "more ink")):
        save_style(folders, Style(name=name, prompt=prompt))
    assert [(style.name, style.prompt) for style in read_styles(folders)] == [("ink", "more ink"), ("photo", "photo")]
    for style, words in ((Style(name=" ", prompt="x"), "name"), (Style(name="x", prompt=" "), "empty")):
        with pytest.raises(OptionsError, match=words):
            save_style(folders, style)


def test_deleting_removes_the_named_styles_or_none(tmp_path: Path) -> None:
    folders = ModelFolders(tmp_path)
    write_styles(folders, [Style(name=name, prompt=name) for name in ("ink", "photo", "oil")])
    with pytest.raises(OptionsError, match="nearest.*ink"):
        delete_styles(folders, ["photo", "inc"])
    delete_styles(folders, ["ink", "oil"])
    assert [style.name for style in read_styles(folders)] == ["photo"]
