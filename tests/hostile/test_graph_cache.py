"""Tests cached graphs that are foreign or not files: each is deleted and traced again, and never ends a run."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import StableFastRunner, compile_module
from modules.stable_fast.store import cache
from tests import tiny
from tests.stable_fast.networks import inputs_for, latent

pytestmark = pytest.mark.own_cache

CALL = {"input": torch.randn(2, 8, generator=torch.Generator().manual_seed(1))}
ROUNDS = 2000


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)).eval()


def kept_graph(network: nn.Module) -> Path:
    """Compiles once, which saves a graph; returns its path."""
    compile_module(network, CALL)(**CALL)
    (path,) = (cache.cache_folder() / "graphs").glob("*.json")
    return path


def content(path: Path) -> dict[str, Any]:
    return json.loads(cache.unsealed(path.read_text(), path.stem))


def put(path: Path, graph: Any) -> None:
    """Replaces the saved graph, with a valid checksum."""
    path.write_text(cache.sealed(json.dumps(graph), path.stem))


def answers_rightly(network: nn.Module, *, from_disk: bool) -> None:
    compiled = compile_module(network, CALL)
    torch.testing.assert_close(compiled(**CALL), network(**CALL))
    assert compiled.report.programs[-1].from_disk is from_disk and compiled.report.level != "off"


def test_a_good_graph_is_read(network: nn.Module) -> None:
    kept_graph(network)
    answers_rightly(network, from_disk=True)


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a folder": lambda path: (path.mkdir(), (path / "x").touch()),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nowhere": lambda path: path.symlink_to(path.with_name("nowhere")),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("what", IN_PLACE)
def test_anything_but_a_file_is_replaced(network: nn.Module, what: str) -> None:
    path = kept_graph(network)
    path.unlink()
    IN_PLACE[what](path)
    answers_rightly(network, from_disk=False)
    assert path.is_file() and not path.is_symlink()
    answers_rightly(network, from_disk=True)


@pytest.mark.parametrize("what", IN_PLACE)
def test_an_invalid_list_of_sizes_is_replaced(network: nn.Module, what: str) -> None:
    sizes = kept_graph(network).with_suffix(".sizes")
    sizes.unlink(missing_ok=True)
    IN_PLACE[what](sizes)
    answers_rightly(network, from_disk=True)


def test_what_is_too_large_makes_way(network: nn.Module) -> None:
    path = kept_graph(network)
    os.truncate(path, cache.MAX_BYTES + 1)
    answers_rightly(network, from_disk=False)


def breaks_when_run(graph: dict[str, Any]) -> dict[str, Any]:
    """Makes a well-formed graph whose first product has mismatched sizes, which shows only when it runs."""
    node = next(node for node in graph["nodes"] if "linear" in str(node.get("target")))
    node["args"]["tuple"][1] = node["args"]["tuple"][0]
    return graph


def lacks_its_weights(graph: dict[str, Any]) -> dict[str, Any]:
    return {**graph, "weights": {}}


def names_other_weights(graph: dict[str, Any]) -> dict[str, Any]:
    return {**graph, "weights": {name: "gone.weight" for name in graph["weights"]}}


def asks_for_all_memory(graph: dict[str, Any]) -> dict[str, Any]:
    node = next(node for node in graph["nodes"] if node["op"] == "call_function")
    node.update(target="aten.ones.default", args={"tuple": [[2**44, 8]]}, kwargs={"dict": {}})
    return graph


@pytest.mark.parametrize("change", [breaks_when_run, lacks_its_weights, names_other_weights, asks_for_all_memory])
def test_a_graph_that_fails_later_is_traced_again(
    network: nn.Module, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    path = kept_graph(network)
    for sizes in path.parent.glob("*.sizes"):
        sizes.unlink()
    whole = path.read_text()
    put(path, change(content(path)))
    answers_rightly(network, from_disk=False)
    assert path.read_text() == whole


def test_a_failing_graph_that_cannot_be_deleted_is_read_once(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept_graph(network)
    path.with_suffix(".sizes").unlink(missing_ok=True)
    put(path, breaks_when_run(content(path)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    answers_rightly(network, from_disk=False)


def test_the_unet_goes_on_too() -> None:
    network = tiny.unet(tiny.SMALL_UNET)

    def step() -> tuple[Tensor, StableFastRunner]:
        runner = StableFastRunner(network)
        runner.prepare(inputs_for(), [500.0])
        with torch.inference_mode():
            return runner.step(latent(), 500.0), runner

    expected, _ = step()
    (path,) = (cache.cache_folder() / "graphs").glob("*.json")
    put(path, breaks_when_run(content(path)))
    path.with_suffix(".sizes").unlink(missing_ok=True)
    found, runner = step()
    assert torch.equal(found, expected) and not runner.report.programs[-1].from_disk
    assert runner.report.level == "fused"


VALUES = (
    None,
    True,
    -1,
    2**70,
    1.5,
    "",
    "x; import os",
    [],
    {},
    [[]],
    {"node": "gone"},
    {"tuple": None},
    {"dtype": "os"},
)
TARGETS = (
    "aten.add_.Tensor",
    "aten.from_file.default",
    "os.system.x",
    "aten.set_.source_Storage",
    "prims.copy_to.default",
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def test_thousands_of_changed_graphs_are_read_or_deleted(network: nn.Module, tmp_path: Path) -> None:
    path = kept_graph(network)
    text, generator = json.dumps(content(path)), random.Random(8)
    target, read = tmp_path / path.name, 0
    for _ in range(ROUNDS):
        graph = json.loads(text)
        for _ in range(generator.randint(1, 3)):
            container, key = generator.choice(places(graph) or [({"x": 0}, "x")])
            if key == "target" and generator.random() < 0.7:
                container[key] = generator.choice(TARGETS)
            elif generator.random() < 0.3 and isinstance(container, dict):
                del container[key]
            else:
                container[key] = generator.choice(VALUES)
        put(target, graph)
        fused = cache.read_graph(target)
        assert target.exists() == (fused is not None)
        if fused is not None:
            read += 1
            assert not {str(node.target) for node in fused.traced.graph.nodes} & set(TARGETS)
    assert 0 < read < ROUNDS


def test_a_call_that_makes_no_sense_costs_no_kept_graph(network: nn.Module) -> None:
    path = kept_graph(network)
    compiled = compile_module(network, CALL)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(input=torch.randn(2, 9))
    assert path.exists()
