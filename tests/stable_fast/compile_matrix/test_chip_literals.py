"""Numbers of one chip are read for cards of its class only: in the sources, and while ops choose and launch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from modules.core.paths import PROJECT_ROOT
from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.devices import CardClass
from modules.stable_fast.kernels.triton_import import HAS_TRITON, INTERPRETED

if INTERPRETED or not HAS_TRITON:
    pytest.skip("needs Triton's compiler", allow_module_level=True)

from tests.stable_fast.compile_matrix.cards import CARDS, AbsentCard
from tests.stable_fast.compile_matrix.compiling import IMPLEMENTATIONS, _Launches, _pretending, distinct
from tests.stable_fast.compile_matrix.workload import Workload, calls_of_a_step

SLOW = pytest.mark.slow
KERNELS = PROJECT_ROOT / "modules" / "stable_fast" / "kernels"
# The files with numbers of Hopper's: tiles, rates, shared memory. What is named may run anywhere, to say that it is not
# for this card, or to tell a tile's name.
HOPPER = {
    "linear/tma_tiles.py": {"serves_tma", "<genexpr>", "<listcomp>", "name", "columns"},
    "linear/matmul_tma.py": set[str](),
    "conv/implicit_matmul_tma.py": {"name"},
    "attention/specialized.py": {"name"},
}
# The files whose numbers fit matrix units that Triton uses, which it does not on Turing.
TILES = {
    "linear/matmul.py": {"name"},
    "conv/implicit_matmul.py": {"name"},
    "attention/strided.py": {"name"},
    "attention/cross.py": {"name"},
}
ABSENT = {
    CardClass.TURING: {**HOPPER, **TILES},
    CardClass.MMA: HOPPER,
    CardClass.WGMMA: dict[str, set[str]](),
    CardClass.TCGEN05: HOPPER,
}
# Of RTX 20 to 50, A100, H100, H200 and B200, but for those that are common numbers (48, 64, 72, 80, 96, 128, 144, 160).
MULTIPROCESSORS = {28, 30, 34, 36, 38, 46, 50, 58, 60, 66, 68, 70, 76, 78, 82, 84, 108, 114, 132, 142, 148, 170, 188}
OTHERWISE = {("linear/cublaslt.py", 68), ("linear/cublaslt.py", 28)}  # cuBLAS names sums in fp32 and e4m3 so
SHARED = {size << 10 for size in (99, 100, 101, 163, 164, 227, 228)}
FACTS = ("capability", "multi_processor_count", "max_shared_mem")


def literals(path: str, source: str) -> Iterator[str]:
    """Yields what this file of kernels/ knows of single chips, but for what it may know."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in FACTS and path != "devices.py":
            yield f"{path}:{node.lineno} reads {node.attr}, which only devices.py turns into classes"
        if isinstance(node, ast.Constant) and type(node.value) is int and path not in HOPPER:
            if node.value in MULTIPROCESSORS | SHARED and (path, node.value) not in OTHERWISE:
                yield f"{path}:{node.lineno} has {node.value}, a chip's number"


def test_sources_know_no_single_chip() -> None:
    files = {path.relative_to(KERNELS).as_posix(): path.read_text(encoding="utf-8") for path in KERNELS.rglob("*.py")}
    assert set(HOPPER) | set(TILES) <= set(files)
    assert [said for path, source in files.items() for said in literals(path, source)] == []


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("splits = 132 // tiles", "has 132"),
        ("def f(x, processors=108): pass", "has 108"),
        ("fits = size <= 232448", "has 232448"),
        ("if card_of(x).capability >= (8, 9): pass", "reads capability"),
        ("n = torch.cuda.get_device_properties(0).multi_processor_count", "reads multi_processor_count"),
    ],
)
def test_a_planted_literal_is_found(planted: str, said: str) -> None:
    assert any(said in found for found in literals("conv/implicit_matmul.py", planted))


def functions_run(card: AbsentCard) -> set[tuple[str, str]]:
    """The file and name of each function of kernels/ that a step runs there, with all candidates launched."""
    launches, run = _Launches(), set[tuple[str, str]]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (path := Path(frame.f_code.co_filename)).is_relative_to(KERNELS):
            run.add((path.relative_to(KERNELS).as_posix(), frame.f_code.co_name))

    with _pretending(card, lambda *_: None, launches.by_all):
        calls = list(distinct(calls_of_a_step(Workload("SD1.5", 512)), torch.float16))
        sys.setprofile(note)
        try:
            for call in calls:
                IMPLEMENTATIONS[call.op](*call.args)
        finally:
            sys.setprofile(None)
    return run


def foreign(run: set[tuple[str, str]], kind: CardClass) -> set[tuple[str, str]]:
    return {(path, name) for path, name in run if path in ABSENT[kind] and name not in ABSENT[kind][path]}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) for name in ("RTX 2080 Ti", "B200")] + ["RTX 4090"])
def test_no_code_of_another_class_runs(name: str) -> None:
    card = CARDS[name]
    run = functions_run(card)
    assert foreign(run, card.card.kind) == set()
    assert "conv/libraries.py" in {path for path, _ in run}
    assert bool(foreign(run, CardClass.TURING)) == (card.card.kind is not CardClass.TURING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RTX 2080 Ti", "RTX 4090", "B200"])
def test_code_that_takes_a_card_for_hopper_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.Card, "kind", CardClass.WGMMA)
    found = foreign(functions_run(CARDS[name]), CardClass.MMA)
    assert {path for path, _ in found} >= {"linear/tma_tiles.py", "linear/matmul_tma.py", "conv/implicit_matmul_tma.py"}
