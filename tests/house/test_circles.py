"""No two files need each other, in however many steps, and no two rooms of one folder do."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from tests.house.source_tree import Import, SourceFile, imported_file, source_files

Edges = Mapping[tuple[str, str], str]  # (importer, imported): where


def file_edges(files: tuple[SourceFile, ...]) -> dict[tuple[str, str], str]:
    """Which file imports which. Importing a part of a package counts for the part alone, though Python runs the
    package's own file first; those hold no more than the names that the package offers."""
    known = {file.dotted for file in files}
    edges: dict[tuple[str, str], str] = {}
    for file in files:
        for found in file.imports:
            target = imported_file(found.target, known)
            if target is not None and target != file.dotted:
                edges.setdefault((file.dotted, target), describe(file, found))
    return edges


def describe(file: SourceFile, found: Import) -> str:
    return f"{file.name}:{found.line} imports {found.target} {found.when.value}"


def room_edges(edges: Edges, packages: frozenset[str]) -> dict[tuple[str, str], str]:
    """The same between neighbours: the files and folders in which two names begin to differ."""
    rooms: dict[tuple[str, str], str] = {}
    for (importer, target), place in edges.items():
        left, right = (f"{name}.__init__" if name in packages else name for name in (importer, target))
        pairs = zip(ladder(left), ladder(right), strict=False)
        rooms.setdefault(next(pair for pair in pairs if pair[0] != pair[1]), place)
    return rooms


def ladder(dotted: str) -> list[str]:
    """a.b.c -> a, a.b, a.b.c"""
    parts = dotted.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def circle(edges: Edges) -> str | None:
    """One circle, an import a line, or None."""
    graph: dict[str, set[str]] = {}
    for importer, target in edges:
        graph.setdefault(importer, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names: list[str] = error.args[1][::-1]  # graphlib tells it from the imported to the importer
        return "\n".join(edges[pair] for pair in zip(names, names[1:], strict=False))
    return None


def packages() -> frozenset[str]:
    return frozenset(file.dotted for file in source_files() if file.path.name == "__init__.py")


def test_no_two_files_import_each_other() -> None:
    """Imports inside functions and those for types count: they hide a circle, they do not open it."""
    found = circle(file_edges(source_files()))
    assert found is None, f"\n{found}"


def test_no_two_rooms_of_a_folder_import_each_other() -> None:
    found = circle(room_edges(file_edges(source_files()), packages()))
    assert found is None, f"\n{found}"


def test_a_circle_is_reported_import_by_import() -> None:
    edges = {("a", "b"): "a:1", ("b", "c"): "b:2", ("c", "a"): "c:3", ("c", "d"): "c:4"}
    assert sorted((circle(edges) or "").splitlines()) == ["a:1", "b:2", "c:3"]
    assert circle({("a", "b"): "", ("b", "c"): "", ("a", "c"): ""}) is None


def test_rooms_of_one_folder_are_compared() -> None:
    edges = {("m.x.one", "m.y.one"): "there", ("m.y.two", "m.x.two"): "back", ("m.y", "m.y.two"): "inside"}
    assert circle(edges) is None, "no two files do"
    rooms = room_edges(edges, frozenset({"m.y"}))
    assert rooms == {("m.x", "m.y"): "there", ("m.y", "m.x"): "back", ("m.y.__init__", "m.y.two"): "inside"}
    assert circle(rooms) is not None
