"""The import rules of docs/architecture.md: who may use whom, and which modules must not import torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import pytest

from tests.house.source_tree import (
    ROOT,
    Function,
    Import,
    SourceFile,
    When,
    imported_file,
    imports_in,
    in_rooms,
    source_files,
)

MIDDLE = ("text", "sampling", "lora", "controlnet", "images", "stable_fast", "loader")
# The other packages that each package under modules/ may import.
ALLOWED: dict[str, frozenset[str]] = {
    "version": frozenset(),  # modules/version.py, one constant
    "core": frozenset(),
    "cluster": frozenset({"tasks", "generation", "gallery", "images", "core"}),
    "models": frozenset({"core"}),
    "tasks": frozenset({"generation", "gallery", *MIDDLE, "core"}),
    "generation": frozenset({"gallery", "catalog", *MIDDLE, "models", "core", "version"}),
    "gallery": frozenset({"images", "core"}),
    "catalog": frozenset({"core"}),
    "text": frozenset({"loader", "models", "core"}),
    "lora": frozenset({"loader", "models", "core"}),
    "controlnet": frozenset({"loader", "models", "core"}),
    "loader": frozenset({"models", "core"}),
    "images": frozenset({"core"}),
    "sampling": frozenset({"core"}),  # networks are only used as callables
    "stable_fast": frozenset({"core"}),  # works on any nn.Module, so never imports ours
}
# Stricter rules than for whole packages: (importer, imported package) -> the only part that may be used.
ONLY = {("text", "loader"): "modules.loader.files.state_dict"}
BANNED_PACKAGES = ("gradio", "argparse", "transformers", "diffusers", "torchvision")
# Front ends turn words, forms and routes into requests. Apart from the code that makes pictures, they may use the
# tables of names, the picture files, and Stable-Fast's doctor, report and tables of kernels.
FRONT_DOORS = (
    "modules.cluster",
    "modules.tasks",
    "modules.generation",
    "modules.gallery",
    "modules.catalog",
    "modules.core",
    "modules.version",
    "modules.sampling.names",
    "modules.controlnet.names",
    "modules.controlnet.preprocessors",
    "modules.images",
    "modules.stable_fast.doctor",
    "modules.stable_fast.report",
    "modules.stable_fast.store.exchange",
)
# The parts of the project that each room outside modules/ may import.
USES: dict[str, tuple[str, ...]] = {
    "pipeline": ("cli",),
    "cli": ("cli", *FRONT_DOORS),
    "api": ("api", *FRONT_DOORS),
    "ui": ("ui", "cli", "api", *FRONT_DOORS),  # the page's server has a command line, and serves the API
    "integrations": ("integrations", "modules.stable_fast", "modules.core"),
    "tools": ("tools", "modules"),
    "benchmarks": ("benchmarks", "tools", "modules", "tests"),  # for the small networks of the tests
}
PROJECT = (*USES, "modules", "tests")
# These must respond at once (--help, the page itself, refusing a request), so they must not import torch.
TORCH_FREE_ROOMS = ("pipeline", "cli", "ui", "api")
TORCH_FREE = (
    "modules.controlnet.names",
    "modules.controlnet.preprocessors",
    "modules.core.errors",
    "modules.core.progress",
    "modules.core.paths",
    "modules.generation.options",
    "modules.images.modes",
    "modules.images.open",
    "modules.tasks.prompt_file",
    "modules.text.prompt",
    "modules.sampling.names",
)


def within(dotted: str, part: str) -> bool:
    return dotted == part or dotted.startswith(f"{part}.")


def layer_error(importer: str, target: str) -> str | None:
    """Returns why `importer` must not import `target` (both dotted), or None."""
    own, other = importer.split("."), target.split(".")
    if own[0] != "modules":
        return room_error(own[0], target)
    if other[0] in BANNED_PACKAGES:
        return f"nothing under modules/ imports {other[0]}"
    if other[0] in PROJECT and other[0] != "modules":
        return f"modules/ never imports upwards ({other[0]})"
    if other[0] != "modules" or len(other) < 2 or len(own) < 2 or other[1] == own[1]:
        return None
    return package_error(own[1], other[1], target)


def room_error(room: str, target: str) -> str | None:
    if target.split(".")[0] not in PROJECT or any(within(target, part) for part in USES[room]):
        return None
    return f"{room} uses {', '.join(USES[room])}, not {target}"


def package_error(own: str, other: str, target: str) -> str | None:
    if own not in ALLOWED:
        return f"package modules.{own} has no place in the layers; add it to this test and docs/architecture.md"
    if other not in ALLOWED[own]:
        return f"modules.{own} must not import modules.{other}"
    only = ONLY.get((own, other))
    if only and not within(target, only):
        return f"modules.{own} may use {only} only, not {target}"
    return None


def torch_import(start: str, files: Mapping[str, SourceFile]) -> str | None:
    """Returns the chain of files through which importing `start` imports torch, or None."""
    chains, seen = [(start,)], {start}
    for chain in chains:
        for found in starting(files[chain[-1]]):
            if within(found.target, "torch"):
                return f"{' -> '.join(chain)}:{found.line} imports torch when it is imported"
            for name in run_by(found.target, files):
                if name not in seen:
                    seen.add(name)
                    chains.append((*chain, name))
    return None


def starting(file: SourceFile) -> Iterator[Import]:
    return (found for found in file.imports if found.when is When.START)


def run_by(target: str, files: Mapping[str, SourceFile]) -> list[str]:
    """Returns the files that run when a name is imported: its own file and those of the enclosing packages."""
    parts = (imported_file(target, files) or "").split(".")
    return [name for count in range(1, len(parts) + 1) if (name := ".".join(parts[:count])) in files]


def prints_on_import(tree: ast.Module) -> Iterator[int]:
    """Yields lines of print calls outside functions, which run when the module is imported."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (Function, ast.Lambda)):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno
        pending.extend(ast.iter_child_nodes(node))


def test_everything_imports_downwards_only() -> None:
    errors = [
        f"{file.name}:{found.line}: {error}"
        for file in source_files()
        for found in file.imports
        if (error := layer_error(file.dotted, found.target))
    ]
    assert not errors, "\n" + "\n".join(errors)


def test_nothing_prints_on_import() -> None:
    errors = [
        f"{file.name}:{line}: print when imported"
        for file in in_rooms("modules")
        for line in prints_on_import(file.tree)
    ]
    assert not errors, "\n" + "\n".join(errors)


def test_what_answers_at_once_imports_no_torch() -> None:
    files = {file.dotted: file for file in source_files()}
    starts = [*TORCH_FREE, *(file.dotted for file in in_rooms(*TORCH_FREE_ROOMS))]
    errors = [error for start in starts if (error := torch_import(start, files))]
    assert not errors, "\n" + "\n".join(errors)


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("modules.core.paths", "modules.models.unet"),
        ("modules.models.unet", "modules.loader.checkpoint"),
        ("modules.sampling.samplers.table", "modules.models.unet"),
        ("modules.stable_fast.compiler", "modules.loader.patcher"),
        ("modules.text.encode", "modules.loader.checkpoint"),
        ("modules.images.save", "modules.text.prompt"),
        ("modules.loader.checkpoint", "modules.generation.options"),
        ("modules.tasks.queue", "modules.cluster.pool"),
        ("modules.generation.session", "ui.app"),
        ("modules.generation.session", "cli.words"),
        ("modules.generation.session", "diffusers.UNet2DConditionModel"),
        ("cli.main", "ui.app"),
        ("cli.main", "modules.loader.checkpoint"),
        ("api.routes", "ui.events.handlers"),
        ("ui.app", "modules.sampling.samplers.table"),
        ("integrations.comfyui.node", "modules.generation.session"),
        ("tools.demo_model.train", "tests.tiny"),
        ("pipeline", "modules.generation.session"),
    ],
)
def test_a_forbidden_edge_is_found(importer: str, target: str) -> None:
    assert layer_error(importer, target)


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("modules.lora.apply", "modules.loader.patcher.WeightPatch"),
        ("modules.text.embeddings", "modules.loader.files.state_dict.read_state_dict"),
        ("modules.generation.session", "modules.stable_fast.StableFastPatcher"),
        ("modules.images.save", "modules.images.metadata.PNG_KEY"),
        ("modules.models.unet", "torch.nn"),
        ("cli.main", "modules.generation.session.Session"),
        ("modules.cluster.worker", "modules.tasks.kinds.run_task"),
        ("ui.app", "cli.streams.tell"),
    ],
)
def test_an_allowed_edge_passes(importer: str, target: str) -> None:
    assert layer_error(importer, target) is None


def test_imports_are_seen_wherever_they_stand() -> None:
    tree = ast.parse(
        "def f():\n    from ..models import unet\n    from . import save\n"
        "if TYPE_CHECKING:\n    from a import b\nelse:\n    import c\n"
    )
    assert list(imports_in(tree, "modules.images")) == [
        Import("modules.models.unet", 2, When.CALL),
        Import("modules.images.save", 3, When.CALL),
        Import("a.b", 5, When.TYPES),
        Import("c", 7),
    ]


def test_torch_is_found_behind_other_files() -> None:
    def file(text: str) -> SourceFile:
        return SourceFile(ROOT / "x.py", ast.parse(text), 0)

    files = {"a": file("from p.b import x"), "p": file("import torch"), "p.b": file(""), "c": file("def f(): import p")}
    assert torch_import("a", files) == "a -> p:1 imports torch when it is imported"
    assert torch_import("c", files) is None


def test_prints_are_distinguished_from_functions() -> None:
    tree = ast.parse("def f():\n    print(1)\nif True:\n    print(2)\nclass A:\n    print(3)\n")
    assert sorted(prints_on_import(tree)) == [4, 6]
