"""Reports on compilation and speed: as data, as JSON, as text, and as the one line shown to the user."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from modules.stable_fast.config import Level
from modules.stable_fast.precision import MOST_ERROR
from modules.stable_fast.runtime.timing import StepTimer
from modules.stable_fast.store.ready import Effort

OUTER = "outer blocks"  # in the names of shapes: steps that reuse deep features


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """How one program was made."""

    nodes_before: int
    nodes_after: int
    matches: Mapping[str, Mapping[str, int]]
    stage_nodes: Mapping[str, int]
    from_disk: bool = False  # read from the cache folder, without tracing or fusing in this process
    trace_seconds: float
    compile_seconds: float


@dataclass(kw_only=True)
class Counters:
    """Event counts since the network was loaded. A LoRA or a new prompt must not add traces or captures."""

    traces: int = 0
    captures: int = 0
    replays: int = 0
    fused_steps: int = 0
    eager_steps: int = 0
    weights_refreshed: int = 0
    kernels: int = 0  # compiled, or loaded from disk, before a first run
    untried: int = 0  # implementations that there was no time left for in tuning
    probes: int = 0  # implementations timed at new sizes, without tuning


@dataclass(kw_only=True)
class ShapeReport:
    """How the steps of one shape run."""

    warm_up_seconds: float = 0.0
    eager_ms: float | None = None
    level: str = ""  # set if lower than for other shapes, with the reason
    reason: str = ""
    steps: StepTimer = field(default_factory=StepTimer)

    def to_dict(self) -> dict[str, Any]:
        return {
            "warm_up_seconds": self.warm_up_seconds,
            "level": self.level,
            "reason": self.reason,
            "ms_per_step": self.steps.median_ms(),
            "eager_ms_per_step": self.eager_ms,
        }


@dataclass(kw_only=True)
class Report:
    """Everything that `--stable-fast-report` writes."""

    asked: str
    level: Level
    reason: str = ""
    programs: list[CompileReport] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    shapes: dict[str, ShapeReport] = field(default_factory=dict)  # the latest last
    choices: Mapping[str, str] = field(default_factory=dict)
    kernel_seconds: float = 0.0  # for compiling the kernels that the counters tell of
    probe_seconds: float = 0.0  # for timing the probes
    weights_mib: float = 0.0
    graph_mib: float = 0.0
    steps_per_image: int = 0
    precision: str = "off"
    precision_reason: str = ""  # why that has no effect
    precision_error: float | None = None  # of a step, relative to the network's own, if it was measured
    parts: Mapping[str, Report] = field(default_factory=dict)  # other networks: VAE, text encoder, ...

    def add_effort(self, effort: Effort) -> None:
        """Adds what was done before a first run."""
        self.counters.kernels += effort.kernels
        self.counters.probes += effort.probes
        self.counters.untried += effort.untried
        self.kernel_seconds += effort.kernel_seconds
        self.probe_seconds += effort.probe_seconds

    def lower(self, level: Level, reason: str) -> None:
        """Switches to a lower level. The reason is added to those for earlier switches."""
        self.level, self.reason = level, _joined(self.reason, reason)

    def lower_shape(self, name: str, level: Level, reason: str) -> None:
        """Records that only this shape runs at a lower level. Its step times so far no longer count."""
        shape = self.shape(name)
        if not shape.reason:
            shape.steps.restart()
        shape.level, shape.reason = level.value, reason

    def shape(self, name: str) -> ShapeReport:
        """The report of a shape, which becomes the latest shape."""
        self.shapes[name] = self.shapes.pop(name, None) or ShapeReport()
        return self.shapes[name]

    @property
    def warm_up_seconds(self) -> float:
        return sum(shape.warm_up_seconds for shape in self.shapes.values())

    @property
    def _latest_name(self) -> str:
        """The latest shape's name. Steps of the outer blocks alone count as the same shape's."""
        return next(reversed(self.shapes), "").removesuffix(f", {OUTER}")

    @property
    def latest(self) -> ShapeReport:
        return self.shapes.get(self._latest_name) or ShapeReport()

    @property
    def _skipped_ms(self) -> float | None:
        """Duration of a step in which only the outer blocks run, at the latest sizes; None if there are none."""
        outer = self.shapes.get(f"{self._latest_name}, {OUTER}")
        return None if outer is None else outer.steps.median_ms()

    @property
    def in_force(self) -> tuple[str, str]:
        """The level at which the latest shape ran, and all reasons why it is lower than the requested level."""
        return self.latest.level or self.level, _joined(self.reason, self.latest.reason)

    def break_even_images(self) -> int | None:
        """The number of pictures of the latest shape after which the warm-up pays off; None if unknown or never."""
        step_ms, eager_ms = self.latest.steps.median_ms(), self.latest.eager_ms
        if step_ms is None or eager_ms is None or not self.steps_per_image or eager_ms <= step_ms:
            return None
        return math.ceil(self.warm_up_seconds * 1000 / ((eager_ms - step_ms) * self.steps_per_image))

    def status_line(self) -> str:
        level, reason = self.in_force
        parts = [f"Stable-Fast: {level}" + (f" instead of {self.asked} ({reason})" if level != self.asked else "")]
        if self.precision != "off":
            parts.append(self._precision_note())
        step_ms, eager_ms = self.latest.steps.median_ms(), self.latest.eager_ms
        if step_ms is not None:
            parts.append(f"{step_ms:.1f} ms/step" + (f" (eager {eager_ms:.1f})" if eager_ms is not None else ""))
            if self._skipped_ms is not None:
                parts.append(f"{self._skipped_ms:.1f} ms/skipped step")
        if self.warm_up_seconds:
            parts.append(f"warm-up {self.warm_up_seconds:.1f} s")
        if self.counters.untried:
            parts.append(f"{self.counters.untried} kernels untried in the time for tuning")
        images = self.break_even_images()
        if images is not None:
            parts.append(f"pays from image {max(1, images)}")
        for name, part in self.parts.items():
            if part.level != part.asked and part.reason != self.reason:
                parts.append(f"{name} {part.level} ({part.reason})")
        return ", ".join(parts)

    def _precision_note(self) -> str:
        reason = self.precision_reason if self.level.fused else f"level {self.level} has no fused operations"
        if reason:
            return f"{self.precision} has no effect ({reason})"
        most = MOST_ERROR.get(self.precision, math.inf)
        if self.precision_error is None or self.precision_error <= most:
            return self.precision
        return (
            f"{self.precision} falls below its floor on this checkpoint "
            f"(a step is off by {self.precision_error:.1%}, and may be by {most:.1%}): choose another precision"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": self.status_line(),
            "asked": self.asked,
            "level": str(self.level),
            "reason": self.reason,
            "precision": self.precision,
            "precision_reason": self.precision_reason,
            "precision_error": self.precision_error,
            "warm_up_seconds": self.warm_up_seconds,
            "break_even_images": self.break_even_images(),
            "counters": asdict(self.counters),
            "kernel_seconds": self.kernel_seconds,
            "probe_seconds": self.probe_seconds,
            "weights_mib": self.weights_mib,
            "graph_mib": self.graph_mib,
            "shapes": {name: shape.to_dict() for name, shape in self.shapes.items()},
            "programs": [asdict(program) for program in self.programs],
            "choices": dict(self.choices),
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def to_text(self) -> str:
        lines = [self.status_line(), *(f"  {line}" for line in self._details())]
        for number, program in enumerate(self.programs, start=1):
            lines += [f"Program {number}", *(f"  {line}" for line in _program_lines(program))]
        for name, part in self.parts.items():
            lines += ["", name, *(f"  {line}" for line in part.to_text().splitlines())]
        return "\n".join(lines)

    def _details(self) -> Iterator[str]:
        yield ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in asdict(self.counters).items())
        if self.kernel_seconds:
            yield f"kernels made ready in {self.kernel_seconds:.1f} s, probes timed in {self.probe_seconds:.1f} s"
        yield f"prepared weights {self.weights_mib:.0f} MiB, captured graphs {self.graph_mib:.0f} MiB"
        yield from (f"shape {name}: warm-up {shape.warm_up_seconds:.1f} s" for name, shape in self.shapes.items())
        yield from (f"{operation}: {choice}" for operation, choice in self.choices.items())


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))


def _program_lines(program: CompileReport) -> Iterator[str]:
    origin = "read from disk" if program.from_disk else "traced"
    yield f"{origin} in {program.trace_seconds:.1f} s, compiled in {program.compile_seconds:.1f} s"
    yield f"{program.nodes_before} operations, {program.nodes_after} after fusion"
    yield "stages: " + ", ".join(f"{name} {count}" for name, count in program.stage_nodes.items())
    for name, rules in program.matches.items():
        yield f"{name}: " + (", ".join(f"{rule} {count}" for rule, count in rules.items()) or "no match")
