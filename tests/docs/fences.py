"""The fenced blocks of README.md and docs/*.md, unchanged, and the examples of the command line's help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cli.arguments import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"<!-- not run: (?P<reason>.+) -->")
OPENING = re.compile(r"(?P<ticks>`{3,})(?P<language>\S*)(?: title=\"(?P<file>[^\"]+)\")?")


@dataclass(frozen=True, kw_only=True)
class Fence:
    """`file` is the fence's title, the file name under which readers save it; `not_run`: why no test runs the fence."""

    place: str
    language: str
    file: str
    text: str
    not_run: str | None


def read_fences(document: Path) -> list[Fence]:
    """Returns the fences of a document. Raises ValueError for a fence that is not closed."""
    fences: list[Fence] = []
    before = ""
    lines = enumerate(document.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if opening := OPENING.fullmatch(line.strip()):
            inside: list[str] = []
            for _, text in lines:
                if text.strip() == opening["ticks"]:
                    break
                inside.append(text)
            else:
                raise ValueError(f"{document.name}:{number}: this fence is not closed")
            mark = MARK.fullmatch(before.strip())
            fences.append(
                Fence(
                    place=f"{document.name}:{number}",
                    language=opening["language"],
                    file=opening["file"] or "",
                    text="\n".join(inside) + "\n",
                    not_run=mark["reason"] if mark else None,
                )
            )
        before = line
    return fences


FENCES = [fence for document in DOCUMENTS for fence in read_fences(document)]


def to_run(language: str) -> list[Fence]:
    return [fence for fence in FENCES if fence.language == language and fence.not_run is None]


def commands() -> dict[str, str]:
    """Maps each command, without its trailing comment, to the first place where it appears."""
    found: dict[str, str] = {}
    for fence in to_run("sh"):
        for line in fence.text.splitlines():
            found.setdefault(re.sub(r" +#.*", "", line), fence.place)
    for line in EXAMPLES.splitlines():
        if line.strip().startswith("pipeline.sh"):
            found.setdefault(f"./{line.strip()}", "--help")
    return found
