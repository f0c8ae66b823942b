"""The import direction of docs/architecture.md, checked by parsing every import; nothing is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MIDDLE = ("text", "sampling", "lora", "controlnet", "images", "stable_fast", "loader")
# What each package under modules/ may import from the others; a package may always import itself.
ALLOWED: dict[str, frozenset[str]] = {
    "version": frozenset(),  # modules/version.py, one constant
    "core": frozenset(),
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
    "sampling": frozenset({"core"}),  # networks only as callables
    "stable_fast": frozenset({"core"}),  # any nn.Module, so never ours by name
}
# Finer than packages: an importing file's prefix, and the only module of that package it may use.
ONLY = {("text", "loader"): "modules.loader.files.state_dict"}
BANNED_PACKAGES = ("gradio", "argparse", "transformers", "diffusers", "torchvision")
TORCH_FREE = (
    "modules/core/errors.py",
    "modules/core/progress.py",
    "modules/core/paths.py",
    "modules/generation/options.py",
    "modules/images/modes.py",
    "modules/images/open.py",
    "modules/text/prompt.py",
    "modules/sampling/names.py",
)
# ui and pipeline.py go in by generation; core, the tables of names and the picture files are common ground.
FRONT_DOORS = (
    "modules.tasks",
    "modules.generation",
    "modules.gallery",
    "modules.catalog",
    "modules.core",
    "modules.version",
    "modules.sampling.names",
    "modules.images",
    "modules.stable_fast.doctor",
    "modules.stable_fast.report",
)


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, wherever it stands; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parents = parts[: len(parts) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def layer_error(importer: str, target: str) -> str | None:
    """Why `importer` (dotted, under modules) must not import `target`, or None."""
    own, parts = importer.split(".")[1:2], target.split(".")
    if parts[0] in BANNED_PACKAGES:
        return f"nothing under modules/ imports {parts[0]}"
    if parts[0] in ("ui", "pipeline", "tests", "benchmarks", "tools"):
        return f"modules/ never imports upwards ({parts[0]})"
    if parts[0] != "modules" or len(parts) < 2 or not own or parts[1] == own[0]:
        return None
    if own[0] not in ALLOWED:
        return f"package modules.{own[0]} has no place in the layers; add it to this test and docs/architecture.md"
    if parts[1] not in ALLOWED[own[0]]:
        return f"modules.{own[0]} must not import modules.{parts[1]}"
    only = ONLY.get((own[0], parts[1]))
    if only and not target.startswith(only):
        return f"modules.{own[0]} may use {only} only, not {target}"
    return None


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def prints_on_import(tree: ast.Module) -> Iterator[int]:
    """Lines of print calls that run when the module is imported: outside any function."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno
        pending.extend(ast.iter_child_nodes(node))


def front_door_errors(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    targets = (pair for pair in imports(tree, package_of(path)) if pair[1].startswith("modules."))
    return [
        f"{path.relative_to(ROOT)}:{line}: front ends use {', '.join(FRONT_DOORS)}, not {target}"
        for line, target in targets
        if not target.startswith(FRONT_DOORS)
    ]


def import_time_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Imports that run when the module is imported: not inside functions, not under TYPE_CHECKING."""
    for node in tree.body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not guarded and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield from imports(node, "")


def test_modules_import_downwards_only() -> None:
    errors: list[str] = []
    for path in python_files("modules"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, target in imports(tree, package_of(path)):
            if error := layer_error(dotted(path), target):
                errors.append(f"{path.relative_to(ROOT)}:{line}: {error}")
    assert not errors, "\n" + "\n".join(errors)


def test_nothing_prints_on_import() -> None:
    errors = [
        f"{path.relative_to(ROOT)}:{line}: print when imported"
        for path in python_files("modules")
        for line in prints_on_import(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not errors, "\n" + "\n".join(errors)


def test_start_up_files_stay_free_of_torch() -> None:
    errors: list[str] = []
    for name in TORCH_FREE:
        if (path := ROOT / name).exists():
            found = import_time_imports(ast.parse(path.read_text(encoding="utf-8")))
            errors += [f"{name}:{line}: imports torch when imported" for line, t in found if t.split(".")[0] == "torch"]
    assert not errors, "\n" + "\n".join(errors)


def test_front_ends_use_generation_only() -> None:
    files = [path for path in [ROOT / "pipeline.py", *python_files("ui"), *python_files("cli")] if path.exists()]
    errors = [error for path in files for error in front_door_errors(path)]
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
        ("modules.generation.session", "ui.app"),
        ("modules.generation.session", "diffusers.UNet2DConditionModel"),
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
    ],
)
def test_an_allowed_edge_passes(importer: str, target: str) -> None:
    assert layer_error(importer, target) is None


def test_relative_and_nested_imports_are_seen() -> None:
    tree = ast.parse("def f():\n    from ..models import unet\n    from . import save\n")
    assert list(imports(tree, "modules.images")) == [(2, "modules.models.unet"), (3, "modules.images.save")]


def test_prints_are_told_apart_from_functions() -> None:
    tree = ast.parse("def f():\n    print(1)\nif True:\n    print(2)\nclass A:\n    print(3)\n")
    assert sorted(prints_on_import(tree)) == [4, 6]
