"""Fused graphs kept on disk: the same program without a trace, and never a wrong one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import cache, compile_module, fusing
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.passes import PASSES
from modules.stable_fast.report import CompileReport
from modules.stable_fast.unet_call import BINDINGS
from modules.stable_fast.weights import WeightStore
from tests import tiny
from tests.stable_fast.networks import UNET_DIMS, rel_error, run_program, unet_call

ROOT = Path(__file__).resolve().parents[2]


def compiled(network: nn.Module, call: Mapping[str, Any], passes: Any = PASSES) -> tuple[Any, CompileReport]:
    return compile_program(WeightStore(network), call, bindings=BINDINGS, dims=UNET_DIMS, passes=passes)


def kept() -> list[Path]:
    return sorted((cache.cache_folder() / "graphs").glob("*.json"))


@pytest.fixture
def no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("traced although the graph is on disk")

    monkeypatch.setattr(fusing, "trace", refuse)


def test_a_kept_graph_gives_the_same_bits_at_every_size(request: pytest.FixtureRequest) -> None:
    network = tiny.unet()
    program, traced = compiled(network, unet_call())
    calls = [unet_call(), unet_call(batch=4, height=24, width=8)]
    expected = [run_program(program, call) for call in calls]
    request.getfixturevalue("no_trace")
    again, report = compiled(network, unet_call(batch=4, height=32, width=8))
    assert report.from_disk and not traced.from_disk
    assert report.matches == traced.matches and report.stage_nodes == traced.stage_nodes
    assert all(torch.equal(run_program(again, call), result) for call, result in zip(calls, expected, strict=True))


def test_tuples_and_constants_of_a_call_come_back(request: pytest.FixtureRequest) -> None:
    """A ControlNet returns a tuple, a text encoder makes its mask while it is traced."""
    network, text = tiny.controlnet(), tiny.text_model()
    call = {**unet_call(), "hint": torch.rand(2, 3, 128, 128)}
    embeddings = torch.randn(1, 77, 64)
    compiled_module = compile_module(network, call), compile_module(text, {"embeddings": embeddings, "skip": 1})
    expected = compiled_module[0](**call), compiled_module[1](embeddings, skip=1)
    request.getfixturevalue("no_trace")
    found = compile_module(network, call)(**call)
    assert isinstance(found, tuple)
    assert all(torch.equal(one, other) for one, other in zip(found, expected[0], strict=True))
    again = compile_module(text, {"embeddings": embeddings, "skip": 1})
    assert torch.equal(again(embeddings, skip=1), expected[1])
    assert rel_error(again(embeddings, skip=1), text(embeddings, skip=1)) < 1e-5


def test_other_networks_calls_and_passes_have_graphs_of_their_own() -> None:
    compiled(tiny.unet(), unet_call())
    for network, call, passes in (
        (tiny.unet(tiny.SD2_UNET), unet_call(tiny.SD2_UNET), PASSES),
        (tiny.unet().half(), {name: x.half() for name, x in unet_call().items()}, PASSES),
        (tiny.unet().to(memory_format=torch.channels_last), unet_call(), PASSES),
        (tiny.unet(), unet_call(), ()),
    ):
        before = len(kept())
        _, report = compiled(network, call, passes)
        assert not report.from_disk and len(kept()) == before + 1


def test_an_attribute_that_changes_the_result_changes_the_graph() -> None:
    network = tiny.unet()
    _, _ = compiled(network, unet_call())
    heads = [module for module in network.modules() if hasattr(module, "heads")]
    heads[0].heads *= 2
    program, report = compiled(network, unet_call())
    assert not report.from_disk
    assert rel_error(run_program(program, unet_call()), network(**unet_call())) < 1e-5


class Unknown(nn.Module):
    """A class whose package has no version: nothing tells when its code changes."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.silu(x) + 1


class Holding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.held = object()


def test_what_cannot_be_described_is_not_kept() -> None:
    compile_module(Unknown().eval(), {"x": torch.randn(2, 3)})
    assert kept() == []
    with pytest.raises(cache.NotKept, match="object"):
        cache._attributes(Holding())


class Patched(nn.Module):
    """Private attributes, hooks and a forward of another class: whatever decides what a module computes counts."""

    def __init__(self) -> None:
        super().__init__()
        self._scale = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self._scale


@dataclass(frozen=True)
class Slotted:
    __slots__ = ("size",)
    size: int


@pytest.fixture
def versioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own package counts as one with a version."""
    monkeypatch.setattr(cache, "_source_version", lambda package: "1")


def path_of(module: nn.Module, example: Mapping[str, Any] | None = None) -> Path | None:
    return cache.graph_path(module, example or {"x": torch.zeros(2)}, {}, {}, ())


@pytest.mark.usefixtures("versioned")
def test_private_attributes_and_patched_classes_have_graphs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module, other = Patched(), Patched()
    assert path_of(module) == path_of(other) is not None
    other._scale = 3.0
    assert path_of(module) != path_of(other)
    before = path_of(module)
    monkeypatch.setattr(Patched, "forward", Unknown.forward)
    assert path_of(module) != before


@pytest.mark.usefixtures("versioned")
def test_a_module_with_hooks_is_not_kept() -> None:
    module = Patched()
    module.register_forward_hook(lambda module, inputs, output: output + 1)
    assert path_of(module) is None


@pytest.mark.usefixtures("versioned")
def test_numbers_beside_tensors_in_a_tuple_belong_to_the_call() -> None:
    x = torch.zeros(2)
    paths = {
        path_of(Patched(), call) for call in ({"x": (x, 2)}, {"x": (x, 3)}, {"x": (x,)}, {"x": x}, {"x": x, "y": ()})
    }
    assert len(paths) == 5 and None not in paths


def test_dataclasses_without_a_dictionary_are_described(versioned: None) -> None:
    assert cache._describe(Slotted(3)) != cache._describe(Slotted(4))


def test_verified_sizes_that_cannot_be_read_are_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "graph.sizes").write_bytes(b"\xff\xfe")
    assert ("step",) not in cache.VerifiedSizes(tmp_path / "graph.json")
    assert "unreadable" in caplog.text


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        cache.replace_file(tmp_path / "graph.json", "text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{}", '{"nodes": [{"op": "call_function"}]}', "cut"])
def test_a_damaged_file_is_made_again(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    network = tiny.unet()
    compiled(network, unet_call())
    (path,) = kept()
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2] if damage == "cut" else damage)
    _, report = compiled(network, unet_call())
    assert not report.from_disk and "unreadable" in caplog.text
    assert path.read_text() == whole


def test_only_the_latest_graphs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_GRAPHS", 2)
    for config in (tiny.SD1_UNET, tiny.SD2_UNET):
        compiled(tiny.unet(config), unet_call(config), ())
    first = min(kept(), key=lambda path: path.stat().st_mtime_ns)
    first.with_suffix(".sizes").write_text("")
    compiled(tiny.unet().to(memory_format=torch.channels_last), unet_call(), ())
    assert len(kept()) == 2 and not first.exists() and not first.with_suffix(".sizes").exists()


def test_a_file_names_operators_and_nothing_else() -> None:
    """Whatever a file says, reading it calls no function of its choice."""
    for target in ("os.system.default", "builtins.eval.x", "aten.nothing.default", "getattr"):
        with pytest.raises((ValueError, AttributeError)):
            cache.decode({"nodes": [{"op": "call_function", "name": "x", "target": target, "args": [], "kwargs": []}]})


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file"))
    program, _ = compiled(tiny.unet(), unet_call())
    assert "could not be kept" in caplog.text
    assert rel_error(run_program(program, unet_call()), tiny.unet()(**unet_call())) < 1e-5


def test_a_second_process_imports_no_tracer() -> None:
    """Importing torch.export's machinery takes longer than everything else that a first step does."""
    code = (
        "import sys, torch; from tests import tiny; from tests.stable_fast.networks import latent, inputs_for\n"
        "from modules.stable_fast import StableFastRunner\n"
        "runner = StableFastRunner(tiny.unet()); runner.prepare(inputs_for(), [500.0])\n"
        "with torch.inference_mode(): runner.step(latent(), 500.0)\n"
        "print(runner.report.programs[0].from_disk, 'torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    answers = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert [answer.split() for answer in answers] == [["False", "True", "True"], ["True", "False", "False"]]
