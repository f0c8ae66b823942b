"""There are no circular imports, direct or indirect, between files or between the rooms of one folder."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from tests.house.source_tree import Import, SourceFile, imported_file, source_files

Edges = Mapping[tuple[str, str], str]  # (importer, imported): where


def file_edges(files: tuple[SourceFile, ...]) -> dict[tuple[str, str], str]:
    """Returns which file imports which. An import from a package counts only for the imported part. Python also runs
    the package's __init__.py first, but that file only contains the names offered by the package."""
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
    """Returns the same between neighbours: the files or folders where the two names first differ."""
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
    """Returns one circle, one import per line, or None."""
    graph: dict[str, set[str]] = {}
    for importer, target in edges:
        graph.setdefault(importer, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names: list[str] = error.args[1][::-1]  # graphlib lists it from the imported to the importer
        return "\n".join(edges[pair] for pair in zip(names, names[1:], strict=False))
    return None


def packages() -> frozenset[str]:
    return frozenset(file.dotted for file in source_files() if file.path.name == "__init__.py")


def test_no_two_files_import_each_other() -> None:
    """Imports inside functions and imports for types count too, because they only hide a circle."""
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
