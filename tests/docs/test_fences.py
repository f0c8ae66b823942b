"""Every fence of the documentation is run or marked with a reason; every option mentioned exists."""

from __future__ import annotations

import argparse
import re

import pytest

from cli.arguments import build_parser
from cli.synonyms import SYNONYMS
from tests.docs import stand_ins
from tests.docs.fences import DOCUMENTS, FENCES, MARK, ROOT, Fence, commands, to_run
from ui.app import build_parser as build_server_parser

COMMAND = re.compile(r"^(\./|\.venv|(python3?|pip|git|set) )", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*(?![\w-])")
OTHER_PROGRAMS = {
    "--no-deps",
    "--update",
    "--head",
    "--address",
    "--autoscaling-config",
    "--generate",
}  # pip's, WSL's, Ray's
SOURCES = [source for folder in ("cli", "tools", "benchmarks") for source in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("fence", FENCES, ids=lambda fence: fence.place)
def test_a_fence_is_run_or_says_why_not(fence: Fence) -> None:
    assert fence.language in ("sh", "python", "text", "yaml"), "say what it is: ```sh, ```python, ```text or ```yaml"
    assert fence.language != "text" or not COMMAND.search(fence.text), "commands are ```sh"


def test_each_mark_stands_before_a_fence() -> None:
    marks = sum(len(MARK.findall(document.read_text(encoding="utf-8"))) for document in DOCUMENTS)
    assert marks == sum(fence.not_run is not None for fence in FENCES) > 0


def test_there_is_something_to_run() -> None:
    assert len(commands()) > 5 and len(to_run("python")) >= 3


def test_stand_ins_that_nothing_needs_any_more_are_gone() -> None:
    asked = " ".join(commands())
    snippets = " ".join(fence.text for fence in to_run("python"))
    assert all(size in asked for size in stand_ins.SIZES)
    assert all(words in snippets for words in stand_ins.WITHOUT_GPU)
    assert all(
        name in asked + snippets for name in ("style:", "photo.png", "mask.png", "output/2026-11-23/00001-7.png")
    )


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return set(parser._option_string_actions)


def test_every_option_that_is_named_exists() -> None:
    known = options_of(build_parser()) | options_of(build_server_parser()) | set(SYNONYMS) | OTHER_PROGRAMS
    for source in SOURCES:
        known |= set(re.findall(r'"(--[a-z][a-z0-9-]*)"', source.read_text(encoding="utf-8")))
    for document in DOCUMENTS:
        named = set(OPTION.findall(document.read_text(encoding="utf-8")))
        assert named <= known, f"{document.name}: {named - known}"
