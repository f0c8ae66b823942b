"""The engine behind both interfaces of Stable-Fast: a network's programs, their execution and the report."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from modules.stable_fast.changes.fingerprint import structure_of
from modules.stable_fast.changes.watch import Change, Watch
from modules.stable_fast.compiler import compile_program, how_to_compile, tell_unmatched
from modules.stable_fast.config import Level, StableFastConfig, level_in_force
from modules.stable_fast.graph.trace import device_of
from modules.stable_fast.kernels.choices import CHOICES
from modules.stable_fast.kernels.launch import wake_compiler
from modules.stable_fast.report import Report, ShapeReport
from modules.stable_fast.runtime.capture import GraphPool
from modules.stable_fast.runtime.capture_table import CaptureOn, Graphs
from modules.stable_fast.runtime.execution import DRAWS, NO_GRAPHS, Execution, can_capture
from modules.stable_fast.runtime.program import Program
from modules.stable_fast.runtime.timing import Outcome, Timed, milliseconds, synchronize
from modules.stable_fast.runtime.weights import StaleWeightsError, WeightStore
from modules.stable_fast.store.cache import discard
from modules.stable_fast.store.ready import make_ready

log = logging.getLogger(__name__)


class Engine:
    """Each form of call has one program; each set of sizes ("key") has one execution of it and one captured graph.

    `forms` are the forms of call served so far. `warm`: the report of each key that has completed a run.
    `stamp` increases whenever results computed ahead of the steps become outdated; each execution remembers its own.
    With `follows_structure`, `refresh_weights` also detects changed layers, attributes and hooks. After a first `look`,
    nothing is checked between looks.
    """

    def __init__(
        self,
        module: nn.Module,
        config: StableFastConfig,
        bindings: Mapping[str, str],
        capture_on: CaptureOn | None = None,
        *,
        follows_structure: bool = False,
    ) -> None:
        level, reason = level_in_force(config.level)
        self.module, self.config = module, config
        self.report = Report(asked=config.level, level=level, reason=reason, precision=config.precision)
        self.stamp = 0
        self._bindings = dict(bindings)
        self._follows_structure = follows_structure
        most = {"max_graphs": config.max_shapes, "max_bytes": config.graph_memory_mib << 20}
        self._graphs = Graphs(capture_on or GraphPool, **most)
        self._watch: Watch | None = None
        self._reads_kept = True  # until a graph from disk fails, since deleting it may fail too
        self.forget()

    def forget(self) -> None:
        """Frees programs, prepared weights and graphs; the next call starts over."""
        self._graphs.release()
        self.store = WeightStore(self.module, self.config.precision)
        self.forms: set[Hashable] = set()
        self.warm: dict[Hashable, ShapeReport] = {}
        self._programs: OrderedDict[Hashable, Program] = OrderedDict()
        self._executions: OrderedDict[Hashable, Execution] = OrderedDict()
        self._structure = structure_of(self.module) if self._follows_structure else None
        for shape in self.report.shapes.values():
            shape.steps.restart()

    def forget_shared(self) -> None:
        """Like `forget`, after memory ran out: also frees the graphs of other networks in the same memory."""
        self._graphs.start_over()
        self.forget()

    def outdate(self) -> None:
        """Makes the prompt and schedule stages run again when their results are next needed."""
        self.stamp += 1
        for execution in self._executions.values():
            execution.forget_prompts()

    def begin_look(self, *, reads_weights: bool = True) -> bool:
        """Begins a look, which `look` ends. Returns whether the module still holds the objects of the last one."""
        return self._watch is not None and self._watch.begin(reads_weights=reads_weights)

    def look(self, *, reads_weights: bool = True) -> bool:
        """Picks up whatever changed since the last look (see Watch). Returns whether weights moved, no more."""
        earlier, self._watch = self._watch, self._watch or Watch(self.module)
        change = earlier.look(reads_weights=reads_weights) if earlier is not None else Change(rebuilt=True)
        if change.rebuilt:
            self.forget()
        elif change.weights:
            self.refresh_weights(set(change.weights))
        return change.moved

    def follow_moved_weights(self) -> None:
        """Starts over if a weight in use was rebound to other memory. Also picks up changed adapters of PEFT."""
        if self._watch is not None:
            return
        try:
            is_adapted_otherwise = self.store.check_addresses()
        except StaleWeightsError:
            log.info("Stable-Fast starts over, since weights were bound to other memory")
            return self.forget()
        if is_adapted_otherwise:
            self.refresh_weights()

    def refresh_weights(self, changed: set[str] | None = None) -> None:
        """Picks up weights changed in place (by default all) without a new trace; starts over if they moved."""
        if self._follows_structure and structure_of(self.module) != self._structure:
            self.forget()
        self.follow_moved_weights()
        self.store.refresh(changed)
        for execution in self._executions.values():
            execution.forget_times()
        self.outdate()
        self.report.counters.weights_refreshed += 1

    def has_run(self, form: Hashable) -> bool:
        """Whether this form's program has run at any of the sizes that are kept."""
        program = self._programs.get(form)
        return any(execution.program is program for execution in self._executions.values())

    def new_sizes(self, form: Hashable, sizes: Mapping[str, int]) -> set[str]:
        """The names of those of these sizes at which this form's program has not run; none if it has never run."""
        program = self._programs.get(form)
        known = [execution.sizes for execution in self._executions.values() if execution.program is program]
        return {name for name, size in sizes.items() if known and all(each[name] != size for each in known)}

    def program(self, form: Hashable, example: Mapping[str, Any], dims: Mapping[str, Any]) -> Program:
        """The program for this form of call, made from `example` now if it does not exist yet."""
        if form in self._programs:
            self._programs.move_to_end(form)
        else:
            how = how_to_compile(self.module, example, self.config, self.report)
            wake_compiler(device_of(self.module, example))  # beside the trace
            with torch.inference_mode(mode=False), torch.no_grad():
                self._programs[form], compiled = compile_program(
                    self.store, example, bindings=self._bindings, dims=dims, reads_kept=self._reads_kept, **how
                )
            self._drop_programs(self.config.max_shapes)  # now, since a call that cannot be traced changes nothing
            self.forms.add(form)
            self.report.programs.append(compiled)
            tell_unmatched(self.report, how["passes"])
            self.report.counters.traces += 1
        return self._programs[form]

    def _drop_programs(self, most: int) -> None:
        """Drops the least recently used programs until there are at most `most`, and all that was made for them."""
        while len(self._programs) > most:
            _, oldest = self._programs.popitem(last=False)
            for key in [key for key, execution in self._executions.items() if execution.program is oldest]:
                self.drop(key)
            self.store.keep_only({name for program in self._programs.values() for name in program.prepared.values()})

    def drop(self, key: Hashable) -> None:
        self._executions.pop(key, None)
        self.warm.pop(key, None)
        self._graphs.drop(key)

    def execution(self, key: Hashable) -> Execution | None:
        """The execution at these sizes, marked as the most recently used; None if the sizes are new."""
        execution = self._executions.get(key)
        if execution is not None:
            self._executions.move_to_end(key)
        return execution

    def new_execution(self, program: Program, sizes: Mapping[str, int], halves: int = 1) -> Execution:
        """Makes an execution for new sizes, and drops the least recently used sizes for it. `keep` registers it."""
        execution = Execution(program, sizes, halves)
        while len(self._executions) >= self.config.max_shapes:
            self.drop(next(iter(self._executions)))
        return execution

    def make_ready(self, run: Callable[[], object], device: torch.device, **how: bool) -> None:
        """Chooses implementations and compiles kernels for a new execution, which `run` runs; see store/ready.py."""
        with self.store.scales.untouched_by(run) as run_afresh:
            effort = make_ready(run_afresh, device, self.config.tuning_seconds, table=self.config.table, **how)
        self.report.add_effort(effort)

    def keep(self, key: Hashable, execution: Execution) -> None:
        """Uses `execution` for these sizes from now on."""
        self._executions[key] = execution

    def capture_prompts(self, key: Hashable, execution: Execution) -> None:
        """Lets further prompts of `execution`, which has run once, be replayed from a graph."""
        if self.report.level.captured:
            execution.run_prompt = partial(self._graphs.run_prompt, key)

    def settle(self, device: torch.device, *, draws: bool = False) -> None:
        """Lowers the level if capturing is impossible: without CUDA, or if random numbers are drawn."""
        if self.report.level.captured and (draws or not can_capture(device)):
            self.report.lower(self.report.level.uncaptured, DRAWS if can_capture(device) else NO_GRAPHS)

    @property
    def captures_now(self) -> bool:
        """Whether steps are replayed from graphs, as they are not while scales are looked for."""
        return self.report.level.captured and self.store.scales.are_known

    def has_graph(self, key: Hashable) -> bool:
        """Whether a graph was captured for this key."""
        return key in self._graphs

    def captured(
        self, key: Hashable, name: Callable[[], str], function: Callable[..., Any], inputs: Sequence[Tensor]
    ) -> Any:
        """function(*inputs), replayed from a graph captured now if needed. Reports use `name()` for the shape."""
        graphs = self._graphs.steps(inputs[0].device)
        result = graphs.run(key, function, inputs)
        self.report.counters.captures = graphs.captures
        if key in graphs.reasons:
            self.report.lower_shape(name(), self.report.level.uncaptured, graphs.reasons[key])
        else:
            self.report.counters.replays += 1
        return result

    def run(
        self,
        key: Hashable,
        name: Callable[[], str],
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        *,
        draws: bool = False,
    ) -> Any:
        """function(*inputs), captured if the level and the device allow it."""
        if inputs:
            self.settle(inputs[0].device, draws=draws)
            if self.captures_now:
                return self.captured(key, name, function, inputs)
        self.store.scales.count_call()
        return function(*inputs)

    # Failures

    def suspects_kept(self, form: Hashable, *, is_proven: bool) -> bool:
        """Whether an error may come from this form's saved graph, if it has one that is not `is_proven` to work."""
        program = None if is_proven else self._programs.get(form)
        return self._reads_kept and program is not None and program.kept_at is not None

    def discard_kept(self, form: Hashable, error: Exception) -> None:
        """Starts over without the saved graph that this form's program was read from, and reads no others."""
        kept_at = self._programs[form].kept_at
        if kept_at is not None:
            discard(kept_at, error)
        self._reads_kept = False
        self.forget()

    def turn_off(self, reason: str) -> None:
        """Runs everything eagerly from now on."""
        log.warning("Stable-Fast is off: %s", reason)
        self.report.lower(Level.OFF, reason)
        self.forget()

    def timed(self, call: Timed, step: Callable[[Timed], Outcome]) -> Outcome:
        """Runs and times a step. The first step of a shape counts as warm-up, including compilation."""
        warm = self.warm.get(call.key)
        if warm is None:
            return self._warm_up(call, step)
        if warm is not self.report.latest:
            self.report.shape(call.name())
        with warm.steps.span(call.device):
            return step(call)

    def _warm_up(self, call: Timed, step: Callable[[Timed], Outcome]) -> Outcome:
        started, device = time.perf_counter(), call.device
        result = step(call)
        synchronize(device)
        self.warm[call.key] = shape = self.note_warm_up(call.name(), started)
        if device.type == "cuda" and self.config.timed_against_eager:
            shape.eager_ms = milliseconds(call.eager(self.module), device)
        self.report.choices = {f"{name} {key}": choice for (name, key), choice in CHOICES.used.items()}
        return result

    @contextmanager
    def compilation_noted(self, name: Callable[[], str]) -> Iterator[None]:
        """Counts the time spent inside as warm-up of a shape if anything was traced or captured."""
        counters = self.report.counters
        before, started = (counters.traces, counters.captures), time.perf_counter()
        yield
        if (counters.traces, counters.captures) != before:
            self.note_warm_up(name(), started)

    def note_warm_up(self, name: str, started: float) -> ShapeReport:
        """Counts the time since `started` as warm-up of a shape, and records how much memory is in use."""
        shape = self.report.shape(name)
        shape.warm_up_seconds += time.perf_counter() - started
        self.report.weights_mib, self.report.graph_mib = self.store.owned_bytes() / 2**20, self._graphs.bytes / 2**20
        return shape
