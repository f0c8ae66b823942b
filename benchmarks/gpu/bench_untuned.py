"""Times UNet steps with and without tables of kernels, on the GPU that is there and on what it is said to be.

    python -m benchmarks.gpu.bench_untuned --tables /tmp/tables           # six sizes, its own capability and 8.9
    python -m benchmarks.gpu.bench_untuned --sizes sd15-512 --capabilities own,8.0,8.9
    python -m benchmarks.gpu.bench_untuned --cold --sizes sd15-512,sd15-1024     # only first calls, caches empty
    python -m benchmarks.gpu.bench_untuned --tiny --device cpu --sizes sd15-128,sdxl-128 --rounds 1

For each capability, `full` runs with these tables: "tuned", measured at these very shapes; "class table", as a card of
the class without a table of its own has it; the same "without this size", whose shapes are left out; "other classes",
with nothing from a card of this class; "defaults only". The folder of `--tables` has what benchmarks.gpu.tune writes;
the shipped table stands in for a file that is missing, and shapes that it lacks are tuned. Where a table holds no times
of this card, a few implementations are timed at the first step, as for users. Without any table there is nothing to
tell which, so "defaults only" is without such probes.

All subjects of a size live in one process and are timed in turn: a captured graph keeps the kernels that were chosen
when it was captured, and choices start anew for each subject. `picked_after_capture` in the result must be 0.
`torch.compile` runs with cuDNN's attention off, which cards of other classes do not have as fast.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.bench_unet import TIMESTEP, Bench
from benchmarks.common import synchronise, write_result
from benchmarks.gpu.first_calls import first_calls, parts_of, seconds_of_cores, told
from benchmarks.gpu.said_card import Capability, capability, said_to_be
from benchmarks.side_by_side import Step, Subject, measure_all
from modules.core.runner import Conditioning
from modules.stable_fast import StableFastConfig, StableFastRunner
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, ImplementationChoices
from modules.stable_fast.kernels.devices import card_named
from modules.stable_fast.store import tables
from modules.stable_fast.store.cache import CACHE_VARIABLE, cache_folder

SIZES = "sd15-512,sd15-640x512,sd15-768,sd15-1024,sd21-768,sdxl-1024"
TUNED, DEFAULTS, OTHERS = "tuned", "defaults only", "other classes"
CLASS, LEFT_OUT = "class table", "class table without this size"
TABLES = (TUNED, DEFAULTS, OTHERS, CLASS, LEFT_OUT)  # the first tell which shapes are left out of the last
TUNING_SECONDS = 60.0
GRAPH_MIB = 60_000  # for all subjects together: if it is too little, graphs are captured again, with other choices
COMPILED = "diffusers-reduce-overhead"
SHIPPED = tables.SHIPPED


class Untuned:
    """The subjects of one size."""

    def __init__(self, size: str, arguments: argparse.Namespace, folder: Path) -> None:
        model, _, sides = size.partition("-")
        self.bench = Bench(argparse.Namespace(**vars(arguments) | {"model": model, "size": sides}))
        self.folder = folder / size
        self.given: Path | None = arguments.tables
        self.used: dict[str, dict[tuple[str, ChoiceKey], str]] = {}  # by label
        self.facts: dict[str, dict[str, Any]] = {}  # by label

    def ours(self, said: Capability | None, table: str) -> Subject:
        label = f"{'.'.join(map(str, said)) if said else 'own'}: {table}"

        def make() -> Step:
            with said_to_be(said), patch.object(tables, "SHIPPED", self.tables_of(label, table)):
                start_anew()
                seconds = TUNING_SECONDS if table == TUNED else 0.0
                config = StableFastConfig(timed_against_eager=False, graph_memory_mib=GRAPH_MIB, tuning_seconds=seconds)
                began = time.perf_counter()
                runner = StableFastRunner(self.bench.unet, config)
                runner.prepare(Conditioning(texts=(self.bench.text,)), [TIMESTEP])
                runner.step(self.bench.x, TIMESTEP)
                synchronise()
                self.facts[label] = self.choices(label) | {"first_step_seconds": time.perf_counter() - began}
                made = runner.report.programs[0]
                self.facts[label] |= {"trace_seconds": made.trace_seconds, "compile_seconds": made.compile_seconds}
                self.facts[label] |= parts_of(runner.report, self.facts[label]["first_step_seconds"])
                if self.bench.x.is_cuda and runner.report.counters.captures != 1:
                    raise RuntimeError(f"the first step was not captured: {runner.report.reason}")
            start_anew()
            return lambda x: runner.step(x, TIMESTEP)

        return Subject(label, make)

    def choices(self, label: str) -> dict[str, Any]:
        """What was chosen in the first step: how much of it by which means."""
        self.used[label] = dict(CHOICES.used)
        predicted = {call for call, name in CHOICES.predicted.items() if name and call not in CHOICES.chosen}
        tuned = self.used.get(f"{label.partition(':')[0]}: {TUNED}", {})
        return {
            "calls": len(CHOICES.used),
            "chosen": sum(call in CHOICES.chosen for call in CHOICES.used),
            "predicted": sum(call in predicted for call in CHOICES.used),
            "refused": len(CHOICES.refused),
            "other_than_tuned": sum(tuned.get(call) != name for call, name in CHOICES.used.items()),
        }

    def tables_of(self, label: str, table: str) -> Path:
        """A folder of shipped tables in which there is only what this subject may know."""
        folder = self.folder / label.replace(":", "").replace(" ", "-")
        folder.mkdir(parents=True)
        if table == DEFAULTS or not self.bench.x.is_cuda:
            return folder
        described = tables.environment(self.bench.device)  # of the card that it is said to be
        if table == OTHERS:
            for file in of_other_classes(described["chip"]):
                shutil.copy(file, folder)
            return folder
        rows = self.measured(described)
        if table == TUNED:
            tables.write_choices(tables.shipped_path(folder, described), described, rows)
            return folder
        here = {call for used in self.used.values() for call in used} if table == LEFT_OUT else set()
        if table == LEFT_OUT and not here:
            raise RuntimeError("no subject before this one has told the shapes of this size")
        rest = [row for row in rows if (row.op, row.key) not in here]
        card = card_named(described["chip"])
        assert card is not None
        tables.write_choices(tables.class_path(folder, card.kind), described, rest)
        return folder

    def measured(self, described: dict[str, str]) -> list[tables.Measured]:
        """All rows measured on this card, or on one that passed for it."""
        card = card_named(described["chip"])
        assert card is not None
        for folder in (self.given, SHIPPED):
            if folder is None:
                continue
            files = (tables.class_path(folder, card.kind), tables.shipped_path(folder, described))
            if rows := [row for file in files for row in tables.read_choices(file)]:
                return rows  # of a shape that both have, the latter holds
        raise RuntimeError(f"no table of {described['chip']} is given: write one with benchmarks.gpu.tune")

    def torch_compile(self) -> Subject:
        """torch.compile `reduce-overhead` of diffusers' network, without cuDNN's attention."""
        make = self.bench.diffusers(channels_last=True, mode="reduce-overhead")

        def remade() -> Step:
            torch.compiler.reset()  # else another size counts as a dynamic one
            return without_cudnn_attention(make())

        return Subject(COMPILED, remade)


def start_anew() -> None:
    """Forgets all choices of this process, and those that it has kept."""
    vars(CHOICES).update(vars(ImplementationChoices()))
    for kept in (*cache_folder().glob("probed-*"), *cache_folder().glob("tuned-*")):
        kept.unlink()


def of_other_classes(chip: str) -> list[Path]:
    """The shipped tables that tell nothing of this card's class."""
    card = card_named(chip)
    assert card is not None
    cards = {path: card_named(path.stem) for path in SHIPPED.glob("*.json")}
    return [
        path
        for path, other in cards.items()
        if path.stem != f"class-{card.kind.value}" and (other is None or other.kind is not card.kind)
    ]


def without_cudnn_attention(step: Step) -> Step:
    def call(x: Tensor) -> Tensor:
        before = torch.backends.cuda.cudnn_sdp_enabled()
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            return step(x)
        finally:
            torch.backends.cuda.enable_cudnn_sdp(before)

    return call


def compare(rows: list[dict[str, Any]]) -> None:
    """Adds each subject's time as a multiple of the tuned one's, and torch.compile's as a multiple of the subject's."""
    ms: dict[str, float] = {row["label"]: row["ms"] for row in rows if "ms" in row}
    for row in rows:
        tuned = ms.get(f"{row['label'].partition(':')[0]}: {TUNED}")
        if "ms" in row and row["label"] != COMPILED:
            row |= {"over_tuned": row["ms"] / tuned} if tuned else {}
            row |= {"compiled_over_this": ms[COMPILED] / row["ms"]} if COMPILED in ms else {}
            told = " ".join(f"{name} {row[name]:.3f}" for name in ("over_tuned", "compiled_over_this") if name in row)
            print(f"  {row['label']:40} {row['ms']:8.3f} ms  {told}", flush=True)


@torch.inference_mode()
def time_size(size: str, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    began = time.monotonic()
    untuned = Untuned(size, arguments, folder)
    subjects = [untuned.ours(said, table) for said in arguments.said for table in arguments.with_tables]
    if size in arguments.compiled.split(","):
        subjects.append(untuned.torch_compile())
    how = {"rounds": arguments.rounds, "steps": arguments.steps, "budget": arguments.budget}
    rows = measure_all(subjects, untuned.bench.x, untuned.bench.reference(), **how)
    compare(rows)
    for row in rows:
        row |= {"size": size, "picked_after_capture": len(CHOICES.used), **untuned.facts.get(row["label"], {})}
    print(f"{size}: {time.monotonic() - began:.0f} s", flush=True)
    return rows


def name_of(arguments: argparse.Namespace) -> str:
    name = "untuned-first-call" if arguments.cold else "untuned"
    return f"{name}-{arguments.suffix}" if arguments.suffix else name


def time_sizes(arguments: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = f"{folder}/cache"  # so that choices stored on this computer are ignored
        for size in arguments.sizes.split(","):
            rows += time_size(size, arguments, Path(folder))
            write_result(name_of(arguments), rows, arguments=arguments.command)  # a later size may end in a fault
            gc.collect()
            torch.cuda.empty_cache()


@torch.inference_mode()
def first_call(arguments: argparse.Namespace) -> None:
    """In a process of its own: prints the seconds of the first step, with the class table that is shipped."""
    size, said = arguments.sizes, arguments.said[0]
    with tempfile.TemporaryDirectory() as folder:
        untuned = Untuned(size, arguments, Path(folder))
        subject = untuned.ours(said, CLASS if untuned.bench.x.is_cuda else DEFAULTS)
        before = os.times()
        subject.make()
        row = {**untuned.facts[subject.name], **seconds_of_cores(before)}
        print(json.dumps({"label": subject.name, "size": size, **row}))


def write_first_calls(arguments: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for row in first_calls(arguments):
        rows.append(row)
        print(told(row), flush=True)
        write_result(name_of(arguments), rows, arguments=arguments.command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16 on a GPU")
    parser.add_argument("--tiny", action="store_true", help="small networks of the models' form, to try the script")
    parser.add_argument("--sizes", default=SIZES, help=f"MODEL-SIZE or MODEL-WIDTHxHEIGHT; default: {SIZES}")
    parser.add_argument("--capabilities", default="own,8.9", help="what the GPU is said to be; own: what it is")
    parser.add_argument("--tables", type=Path, help="a folder of tables measured here; default: the shipped ones")
    parser.add_argument("--with-tables", default=",".join(TABLES), help="comma-separated; default: all five")
    parser.add_argument("--compiled", default="sd15-512,sd15-1024", help="sizes at which torch.compile runs too")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="evaluations per round")
    parser.add_argument("--budget", type=float, default=200.0, help="seconds of a size after which no subject is made")
    parser.add_argument("--suffix", help="suffix of the result's name, to keep a run beside another")
    parser.add_argument("--cold", action="store_true", help="measure only first calls, each with empty caches")
    parser.add_argument("--only-first-call", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("modules.stable_fast.store.probes").setLevel(logging.INFO)
    arguments.command = {key: str(value) for key, value in vars(arguments).items()}
    arguments.batch = 2
    arguments.tuning_seconds = 0.0
    arguments.said = [None if word == "own" else capability(word) for word in arguments.capabilities.split(",")]
    arguments.with_tables = arguments.with_tables.split(",")
    if arguments.only_first_call:
        return first_call(arguments)
    if arguments.cold:
        write_first_calls(arguments)
    else:
        time_sizes(arguments)


if __name__ == "__main__":
    main()
