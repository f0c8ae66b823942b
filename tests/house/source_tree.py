"""The project's Python files and the imports of each, found by parsing, without importing any file."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("modules", "ui", "cli", "api", "integrations", "tools", "benchmarks")  # a missing room is empty
Function = ast.FunctionDef | ast.AsyncFunctionDef
HOLDS_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)


class When(Enum):
    """When an import happens."""

    START = "when the file is imported"
    CALL = "inside a function"
    TYPES = "for types only"


@dataclass(frozen=True)
class Import:
    """One imported name; `from a import b` counts as a.b."""

    target: str
    line: int
    when: When = When.START


@dataclass(frozen=True)
class SourceFile:
    path: Path
    tree: ast.Module
    lines: int

    @property
    def name(self) -> str:
        """The path from the root, with slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def dotted(self) -> str:
        """The name for imports; a package's __init__.py has the package's name."""
        return self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def imports(self) -> list[Import]:
        package = self.path.relative_to(ROOT).parent.as_posix().replace("/", ".")
        return list(imports_in(self.tree, package))


@cache
def source_files() -> tuple[SourceFile, ...]:
    paths = [ROOT / "pipeline.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
    return tuple(read(path) for path in paths)


def read(path: Path) -> SourceFile:
    text = path.read_text(encoding="utf-8")
    return SourceFile(path, ast.parse(text), len(text.splitlines()))


def in_rooms(*rooms: str) -> list[SourceFile]:
    return [file for file in source_files() if file.dotted.split(".")[0] in rooms]


def imports_in(tree: ast.AST, package: str, when: When = When.START) -> Iterator[Import]:
    """Yields every import below a node, at any depth; the file belongs to `package`."""
    for node, moment in inside(tree, when):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, moment) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = base_of(node, package)
            yield from (Import(f"{base}.{alias.name}", node.lineno, moment) for alias in node.names)
        else:
            yield from imports_in(node, package, moment)


def inside(node: ast.AST, when: When) -> Iterator[tuple[ast.AST, When]]:
    """Yields a node's children and when imports in them happen; `when` applies to the node itself."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        yield from ((child, When.TYPES) for child in node.body)
        yield from ((child, when) for child in node.orelse)
        return
    moment = When.CALL if isinstance(node, Function) and when is When.START else when
    yield from ((child, moment) for child in ast.iter_child_nodes(node) if isinstance(child, HOLDS_STATEMENTS))


def base_of(node: ast.ImportFrom, package: str) -> str:
    """Returns the module between "from" and "import", with leading dots resolved."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def imported_file(target: str, known: Iterable[str]) -> str | None:
    """Returns the file of an imported name, which is a module or something in a module; None for other libraries."""
    if target in known:
        return target
    outer = target.rpartition(".")[0]
    return outer if outer in known else None
