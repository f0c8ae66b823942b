"""What compiling and running did, as data, JSON and text, and the one line shown to the user."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """How one program came about."""

    nodes_before: int
    nodes_after: int
    matches: Mapping[str, Mapping[str, int]]
    stage_nodes: Mapping[str, int]
    trace_seconds: float
    compile_seconds: float


@dataclass(kw_only=True)
class Counters:
    """Events since the network was loaded; a LoRA change or a new prompt must not add traces or captures."""

    traces: int = 0
    captures: int = 0
    replays: int = 0
    fused_steps: int = 0
    eager_steps: int = 0
    weights_refreshed: int = 0


class StepTimer:
    """Durations of the latest steps; on CUDA by events, so that measuring waits for nothing."""

    def __init__(self, kept: int = 64) -> None:
        self._spans: deque[tuple[Any, Any]] = deque(maxlen=kept)

    @contextmanager
    def span(self, device: torch.device) -> Iterator[None]:
        start = self._mark(device)
        yield
        self._spans.append((start, self._mark(device)))

    def _mark(self, device: torch.device) -> Any:
        if device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def median_ms(self) -> float | None:
        if not self._spans:
            return None
        return statistics.median(_span_ms(start, end) for start, end in self._spans)


def _span_ms(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return (end - start) * 1000
    end.synchronize()
    return start.elapsed_time(end)


@dataclass(kw_only=True)
class Report:
    """Everything `--stable-fast-report` writes."""

    asked: str
    level: str
    reason: str = ""
    programs: list[CompileReport] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    shapes: list[str] = field(default_factory=list)
    choices: Mapping[str, str] = field(default_factory=dict)
    warm_up_seconds: float = 0.0
    weights_mib: float = 0.0
    graph_mib: float = 0.0
    eager_ms: float | None = None
    steps_per_image: int = 0
    steps: StepTimer = field(default_factory=StepTimer)

    def lower(self, level: str, reason: str) -> None:
        """Notes that a lower level than asked for is in force, and why."""
        self.level, self.reason = level, reason

    def break_even_images(self) -> int | None:
        """After how many pictures the warm-up has paid; None when unknown or never."""
        step_ms = self.steps.median_ms()
        if step_ms is None or self.eager_ms is None or not self.steps_per_image or self.eager_ms <= step_ms:
            return None
        return math.ceil(self.warm_up_seconds * 1000 / ((self.eager_ms - step_ms) * self.steps_per_image))

    def status_line(self) -> str:
        lowered = f" instead of {self.asked} ({self.reason})" if self.level != self.asked and self.reason else ""
        parts = [f"Stable-Fast: {self.level}{lowered}"]
        step_ms = self.steps.median_ms()
        if step_ms is not None:
            against = f" (eager {self.eager_ms:.1f})" if self.eager_ms is not None else ""
            parts.append(f"{step_ms:.1f} ms/step{against}")
        if self.warm_up_seconds:
            parts.append(f"warm-up {self.warm_up_seconds:.1f} s")
        images = self.break_even_images()
        if images is not None:
            parts.append(f"pays from image {images}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "steps"}
        data["programs"] = [asdict(program) for program in self.programs]
        data["counters"] = asdict(self.counters)
        return data | {"ms_per_step": self.steps.median_ms(), "break_even_images": self.break_even_images()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def to_text(self) -> str:
        lines = [self.status_line(), *(f"  {line}" for line in self._details())]
        for number, program in enumerate(self.programs, start=1):
            lines += [f"Program {number}", *(f"  {line}" for line in _program_lines(program))]
        return "\n".join(lines)

    def _details(self) -> Iterator[str]:
        yield ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in asdict(self.counters).items())
        yield f"prepared weights {self.weights_mib:.0f} MiB, captured graphs {self.graph_mib:.0f} MiB"
        yield from (f"shape {shape}" for shape in self.shapes)
        yield from (f"{operation}: {choice}" for operation, choice in self.choices.items())


def _program_lines(program: CompileReport) -> Iterator[str]:
    yield f"traced in {program.trace_seconds:.1f} s, compiled in {program.compile_seconds:.1f} s"
    yield f"{program.nodes_before} operations, {program.nodes_after} after fusion"
    yield "stages: " + ", ".join(f"{name} {count}" for name, count in program.stage_nodes.items())
    for name, rules in program.matches.items():
        yield f"{name}: " + (", ".join(f"{rule} {count}" for rule, count in rules.items()) or "no match")
