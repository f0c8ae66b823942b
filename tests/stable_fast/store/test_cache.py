"""Fused graphs on disk give the same program without a trace, and never a wrong program."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from modules.stable_fast import compile_module, fuse
from modules.stable_fast.compiler import compile_program
from modules.stable_fast.passes import PASSES
from modules.stable_fast.report import CompileReport
from modules.stable_fast.runtime.weights import WeightStore
from modules.stable_fast.store import cache
from modules.stable_fast.unet_call import BINDINGS
from tests import tiny
from tests.stable_fast.networks import UNET_DIMS, rel_error, run_program, unet_call

pytestmark = pytest.mark.own_cache

ROOT = Path(__file__).resolve().parents[3]
OTHER = replace(tiny.SMALL_UNET, linear_projection=True)


def compiled(network: nn.Module, call: Mapping[str, Any], passes: Any = PASSES) -> tuple[Any, CompileReport]:
    return compile_program(WeightStore(network), call, bindings=BINDINGS, dims=UNET_DIMS, passes=passes)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def kept() -> list[Path]:
    return sorted((cache.cache_folder() / "graphs").glob("*.json"))


@pytest.fixture
def no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("traced although the graph is on disk")

    monkeypatch.setattr(fuse, "trace", refuse)


def test_a_kept_graph_gives_the_same_bits_at_every_size(request: pytest.FixtureRequest) -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    program, traced = compiled(network, unet_call())
    calls = [unet_call(), unet_call(batch=4, height=24, width=8)]
    expected = [run_program(program, call) for call in calls]
    request.getfixturevalue("no_trace")
    again, report = compiled(network, unet_call(batch=4, height=32, width=8))
    assert report.from_disk and not traced.from_disk
    assert report.matches == traced.matches and report.stage_nodes == traced.stage_nodes
    assert all(torch.equal(run_program(again, call), result) for call, result in zip(calls, expected, strict=True))


def test_tuples_and_constants_of_a_call_come_back(request: pytest.FixtureRequest) -> None:
    """A ControlNet returns a tuple, and a text encoder creates its mask during tracing."""
    network, text = tiny.controlnet(tiny.SMALL_UNET), tiny.text_model()
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
    compiled(tiny.unet(tiny.SMALL_UNET), unet_call())
    for network, call, passes in (
        (tiny.unet(OTHER), unet_call(), PASSES),
        (tiny.unet(tiny.SMALL_UNET).half(), {name: x.half() for name, x in unet_call().items()}, PASSES),
        (tiny.unet(tiny.SMALL_UNET).to(memory_format=torch.channels_last), unet_call(), PASSES),
        (tiny.unet(tiny.SMALL_UNET), unet_call(), ()),
    ):
        before = len(kept())
        _, report = compiled(network, call, passes)
        assert not report.from_disk and len(kept()) == before + 1


def test_an_attribute_that_changes_the_result_changes_the_graph() -> None:
    network = tiny.unet(tiny.SMALL_UNET)
    _, _ = compiled(network, unet_call())
    heads = [module for module in network.modules() if hasattr(module, "heads")]
    heads[0].heads *= 2
    program, report = compiled(network, unet_call())
    assert not report.from_disk
    assert rel_error(run_program(program, unet_call()), network(**unet_call())) < 1e-5


class Unknown(nn.Module):
    """A class in a package without a version, so that changes of its code go unnoticed."""

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
    """Private attributes, hooks and a foreign `forward` all count, since they influence the module's result."""

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
    """Treats the tests' own package as one that has a version."""
    monkeypatch.setattr(cache, "source_version", lambda package: "1")


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


def test_verified_sizes_that_cannot_be_read_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "graph.sizes").write_bytes(b"\xff\xfe")
    assert ("step",) not in cache.VerifiedSizes(tmp_path / "graph.json")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        cache.replace_file(tmp_path / "graph.json", "text")
    assert list(tmp_path.iterdir()) == []


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda whole: "",
    "cut": lambda whole: whole[: len(whole) // 2],
    "one digit": lambda whole: whole.replace("[64, ", "[65, ", 1),
    "no nodes": lambda whole: '{"nodes": {}}',
    "without checksum": lambda whole: whole.partition("\n")[0],
    "no nodes, sealed": lambda whole: sealed('{"nodes": {}}'),
    "half a node, sealed": lambda whole: sealed('{"nodes": [{"op": "call_function"}]}'),
    "no object, sealed": lambda whole: sealed("[]"),
    "no end, sealed": lambda whole: sealed(json.dumps({**json.loads(whole.partition("\n")[0]), "nodes": []})),
    "of another network": lambda whole: cache.sealed(whole.partition("\n")[0], "Linear-0123"),
}


def sealed(text: str) -> str:
    """Seals a text for the file of the only saved graph."""
    (path,) = kept()
    return cache.sealed(text, path.stem)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again_without_a_word(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Linear(64, 64).eval()
    call = {"input": torch.randn(2, 64)}
    compile_module(network, call)
    (path,) = kept()
    whole = path.read_text()
    path.write_text(DAMAGES[damage](whole))
    assert path.read_text() != whole
    report = compile_module(network, call).report
    assert not report.programs[0].from_disk and warnings(caplog) == []
    assert path.read_text() == whole
    assert compile_module(network, call).report.programs[0].from_disk


def test_only_the_latest_graphs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_GRAPHS", 2)
    for network in (tiny.unet(tiny.SMALL_UNET), tiny.unet(OTHER)):
        compiled(network, unet_call(), ())
    first = min(kept(), key=lambda path: path.stat().st_mtime_ns)
    first.with_suffix(".sizes").write_text("")
    compiled(tiny.unet(tiny.SMALL_UNET).to(memory_format=torch.channels_last), unet_call(), ())
    assert len(kept()) == 2 and not first.exists() and not first.with_suffix(".sizes").exists()


HOSTILE = "ran=__import__('pathlib').Path('ran').touch()"


def test_a_file_of_somebody_else_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FX writes names of placeholders and keyword arguments into a graph's source code unescaped."""
    monkeypatch.chdir(tmp_path)
    network, call = nn.Linear(8, 8).eval(), {"input": torch.randn(2, 8)}
    compile_module(network, call)
    (path,) = kept()
    whole = cache.unsealed(path.read_text(), path.stem)
    for text in (
        whole.replace('"p_bias"', json.dumps(f"p_bias, {HOSTILE}")),
        whole.replace('"kwargs": {"dict": {}}', json.dumps({"kwargs": {"dict": {f"{HOSTILE}, b": 1}}})[1:-1]),
    ):
        assert HOSTILE in text
        path.write_text(sealed(text))
        compile_module(network, call)(**call)
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target",
    ["os.system.default", "builtins.eval.x", "aten.nothing.default", "getattr", "aten.__init__.__call__"]
    + ["aten.from_file.default", "aten.save.default", "aten.add.op", "aten.add_.Tensor", "prims.copy_to.default"]
    + ["aten.set_.source_Storage", "aten.resize_.default", "lightdiffusion.nothing.default", "aten.add.out"],
)
def test_a_file_names_operators_that_open_no_file_and_nothing_else(target: str) -> None:
    call = {"op": "call_function", "name": "x", "target": target, "args": {"tuple": []}, "kwargs": {"dict": {}}}
    with pytest.raises((ValueError, AttributeError)):
        cache.decode({"nodes": [call, {"op": "output", "name": "output"}]})


class Answer(NamedTuple):
    value: Tensor


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        list,
        lambda values: {"a": values[0], "b": tuple(values)},
        lambda values: [(values[0],), [values[1]]],
        lambda values: {"a": values[0], "b": (None, 3, True, [0.5, "s"])},
    ],
)
def test_results_of_every_form_come_back(form: Callable[[Any], Any], tmp_path: Path) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return form([x + 1, x * 2])

    fused = fuse.fuse(Network(), {"x": torch.zeros(3)}, {}, {}, ())
    cache.write_graph(tmp_path / "graph.json", fused)
    found = cache.read_graph(tmp_path / "graph.json")
    assert found is not None and found.traced.out_spec == fused.traced.out_spec


@pytest.mark.parametrize("form", [Answer, lambda value: OrderedDict(a=value), lambda value: {1: value}])
def test_results_that_json_would_change_are_not_kept(form: Callable[[Any], Any], tmp_path: Path) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return form(x + 1)

    cache.write_graph(tmp_path / "graph.json", fuse.fuse(Network(), {"x": torch.zeros(3)}, {}, {}, ()))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file"))
    program, _ = compiled(tiny.unet(tiny.SMALL_UNET), unet_call())
    compile_module(nn.Linear(3, 3).eval(), {"input": torch.randn(2, 3)})
    assert rel_error(run_program(program, unet_call()), tiny.unet(tiny.SMALL_UNET)(**unet_call())) < 1e-5
    (line,) = warnings(caplog)
    assert str(tmp_path / "file") in line and cache.CACHE_VARIABLE in line and "\n" not in line


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "lightdiffusion"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "here"))
    assert cache.cache_folder() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(cache.CACHE_VARIABLE, "~/there")
    assert cache.cache_folder() == tmp_path / "there"
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert cache.cache_folder() == tmp_path / "caches" / "lightdiffusion"


@pytest.mark.parametrize("variable", [cache.CACHE_VARIABLE, "XDG_CACHE_HOME"])
def test_a_home_that_nobody_has_becomes_no_folder(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setenv(variable, "~nobody-of-that-name/x")
    compiled(tiny.unet(tiny.SMALL_UNET), unet_call())
    (line,) = warnings(caplog)
    assert "no home folder is known for ~nobody-of-that-name" in line and cache.CACHE_VARIABLE in line
    assert "no home folder" in cache.why_unwritable(cache.cache_folder())
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache.cache_folder() == ROOT / ".cache" / "lightdiffusion"


def test_why_a_folder_cannot_be_written(tmp_path: Path) -> None:
    assert cache.why_unwritable(tmp_path / "new" / "folder") == ""
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert cache.why_unwritable(tmp_path / "file" / "folder") == "Not a directory"


def test_a_second_process_imports_no_tracer() -> None:
    """Importing torch.export's machinery takes longer than the rest of a first step."""
    code = (
        "import sys, torch; from tests import tiny; from tests.stable_fast.networks import latent, inputs_for\n"
        "from modules.stable_fast import StableFastRunner\n"
        "runner = StableFastRunner(tiny.unet(tiny.SMALL_UNET)); runner.prepare(inputs_for(), [500.0])\n"
        "with torch.inference_mode(): runner.step(latent(), 500.0)\n"
        "print(runner.report.programs[0].from_disk, 'torch._dynamo' in sys.modules, 'sympy' in sys.modules)"
    )
    answers = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert [answer.split() for answer in answers] == [["False", "True", "True"], ["True", "False", "False"]]
