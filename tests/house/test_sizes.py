"""No file, function or folder is larger than a reader can take in at once."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter

import pytest

from tests.house.source_tree import ROOMS, ROOT, Function, SourceFile, in_rooms, source_files

MOST_LINES = 300  # per file
MOST_FILES = 15  # per folder
LONGEST_FUNCTION = 60  # lines, including decorators
LARGEST_TREE = 60 * 2**20  # bytes


def function_lengths(file: SourceFile) -> list[tuple[str, int]]:
    return [
        (f"{file.name}:{node.lineno} {node.name}", (node.end_lineno or 0) - first_line(node) + 1)
        for node in ast.walk(file.tree)
        if isinstance(node, Function)
    ]


def first_line(node: Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def test_files_are_short() -> None:
    long = [f"{file.name} has {file.lines} lines" for file in source_files() if file.lines > MOST_LINES]
    assert not long, "\n" + "\n".join(long)


def test_functions_are_short() -> None:
    lengths = [pair for file in source_files() for pair in function_lengths(file)]
    long = [f"{name} has {length} lines" for name, length in lengths if length > LONGEST_FUNCTION]
    assert not long, "\n" + "\n".join(long)
    assert len(lengths) > 1000, "functions are seen at all"


def test_folders_hold_few_files() -> None:
    counts = Counter(file.path.parent for file in in_rooms(*ROOMS))
    full = [f"{folder} holds {count} files" for folder, count in counts.items() if count > MOST_FILES]
    assert not full, "\n" + "\n".join(full)


def test_the_tree_is_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not listed:
        pytest.skip("the tree is no git checkout")
    files = [ROOT / name for name in listed.strip("\0").split("\0")]
    assert sum(file.stat().st_size for file in files if file.is_file()) <= LARGEST_TREE
