"""Captured graphs by key: bounded tables of them, and all of one network. What cannot be captured runs without one."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.stable_fast.runtime.capture import CaptureError, GraphPool

log = logging.getLogger(__name__)


class ReplayedGraph(Protocol):
    bytes: int
    is_released: bool

    def __call__(self, *inputs: Tensor) -> Any: ...
    def release(self) -> None: ...


class Capture(Protocol):
    """Captures functions into memory shared by their graphs (see GraphPool)."""

    bytes: int

    @property
    def is_empty(self) -> bool: ...
    def __call__(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> ReplayedGraph: ...
    def start_over(self) -> None: ...


CaptureOn = Callable[[torch.device], Capture]


class SharedCapture:
    """One pool and one stream per device, shared by networks that never run at the same time."""

    def __init__(self) -> None:
        self._pools: dict[torch.device, Capture] = {}

    def __call__(self, device: torch.device) -> Capture:
        if device not in self._pools:
            self._pools[device] = GraphPool(device)
        return self._pools[device]


class GraphTable:
    """Graphs by key; the least recently used is dropped first. Their memory is limited to `max_bytes`.

    Memory is only freed when all graphs that share it are released. So a graph that does not fit evicts all others,
    including those of other tables, which are captured again when next needed. A graph too large by itself is rejected.

    The key must cover everything that a graph depends on besides its inputs' values: shapes, the dtype it computes in,
    and the program it runs. `reasons` records why a key runs uncaptured.
    """

    def __init__(self, capture: Capture, *, max_graphs: int = 8, max_bytes: int = 4 << 30) -> None:
        self.capture = capture
        self._graphs: OrderedDict[Hashable, ReplayedGraph] = OrderedDict()
        self._max_graphs = max_graphs
        self._max_bytes = max_bytes
        self.reasons: dict[Hashable, str] = {}
        self.captures = 0

    def __len__(self) -> int:
        return sum(not graph.is_released for graph in self._graphs.values())

    def __contains__(self, key: object) -> bool:
        return key in self._graphs and not self._graphs[key].is_released

    @property
    def bytes(self) -> int:
        return sum(graph.bytes for graph in self._graphs.values() if not graph.is_released)

    def run(self, key: Hashable, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        """function(*inputs), by the graph kept under `key`, captured now if it does not exist yet."""
        if key not in self and key not in self.reasons:
            # Buffers outlive this call, and inference tensors are not writable outside inference mode.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._add(key, function, inputs)
        if key not in self:
            return function(*inputs)
        self._graphs.move_to_end(key)
        return self._graphs[key](*inputs)

    def _add(self, key: Hashable, function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        self._graphs.pop(key, None)  # a graph that was released with the others
        while len(self._graphs) >= self._max_graphs:
            self._drop_oldest()
        while True:
            is_alone = self.capture.is_empty
            try:
                shortage = self._capture_new(key, function, inputs)
            except CaptureError as error:
                self._decline(key, str(error))
                return
            if shortage is None:
                return
            self.capture.start_over()
            if is_alone:
                self._decline(key, shortage)
                return

    def _capture_new(self, key: Hashable, function: Callable[..., Any], inputs: Sequence[Tensor]) -> str | None:
        """Captures a graph. Returns None, or a message if there is not enough memory."""
        try:
            graph = self.capture(function, inputs)
        except torch.OutOfMemoryError:
            return "not enough GPU memory to capture"
        self.captures += 1
        self._graphs[key] = graph
        if self.capture.bytes <= self._max_bytes:
            return None
        return f"its graph needs {self.capture.bytes >> 20} MiB, more than the {self._max_bytes >> 20} allowed"

    def _decline(self, key: Hashable, reason: str) -> None:
        self.reasons[key] = reason
        log.warning("Stable-Fast runs without a CUDA graph: %s", reason)

    def _drop_oldest(self) -> None:
        self._graphs.popitem(last=False)[1].release()

    def drop(self, key: Hashable) -> None:
        """Forgets one key with its graph and its reason."""
        self.reasons.pop(key, None)
        graph = self._graphs.pop(key, None)
        if graph is not None:
            graph.release()

    def start_over(self) -> None:
        """Frees the memory that these graphs share with other tables. The graphs of those tables are released too."""
        self.capture.start_over()

    def release(self) -> None:
        """Forgets everything. The memory is freed once no other table has a graph in it."""
        while self._graphs:
            self._drop_oldest()
        self.reasons.clear()


class Graphs:
    """The table of steps is made with the first graph, when the device is known. Reports count steps only.

    A prompt's graph saves the host a few milliseconds a picture, so it never takes the place of another graph.
    """

    def __init__(self, capture_on: CaptureOn, *, max_graphs: int, max_bytes: int) -> None:
        self._capture_on = capture_on
        self._max_graphs = max_graphs
        self._max_bytes = max_bytes
        self._steps: GraphTable | None = None
        self._prompts: dict[Hashable, ReplayedGraph | None] = {}  # None: runs without a graph

    def steps(self, device: torch.device) -> GraphTable:
        if self._steps is None:
            capture = self._capture_on(device)
            self._steps = GraphTable(capture, max_graphs=self._max_graphs, max_bytes=self._max_bytes)
        return self._steps

    def run_prompt(self, key: Hashable, function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        """function(*inputs), which stores its results itself, by a graph if there is room for it."""
        graph = self._prompts.get(key)
        if key not in self._prompts or (graph is not None and graph.is_released):
            graph = self._prompts[key] = self._captured(function, inputs)
        (graph or function)(*inputs)

    def _captured(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> ReplayedGraph | None:
        capture = self.steps(inputs[0].device).capture
        try:
            # Buffers outlive this call, and inference tensors are not writable outside inference mode.
            with torch.inference_mode(mode=False), torch.no_grad():
                graph = capture(function, inputs)
        except (CaptureError, torch.OutOfMemoryError) as error:
            log.debug("a prompt runs without a CUDA graph: %s", error)
            return None
        if capture.bytes > self._max_bytes:
            graph.release()
            return None
        return graph

    def __contains__(self, key: object) -> bool:
        """Whether this key's steps have a graph."""
        return self._steps is not None and key in self._steps

    @property
    def bytes(self) -> int:
        prompts = (graph.bytes for graph in self._prompts.values() if graph is not None and not graph.is_released)
        return (0 if self._steps is None else self._steps.bytes) + sum(prompts)

    def drop(self, key: Hashable) -> None:
        if self._steps is not None:
            self._steps.drop(key)
        prompt = self._prompts.pop(key, None)
        if prompt is not None:
            prompt.release()

    def start_over(self) -> None:
        """Frees the memory that these graphs share with other networks. The graphs of those are released too."""
        if self._steps is not None:
            self._steps.start_over()

    def release(self) -> None:
        """Forgets everything. The memory is freed once no other network has a graph in it."""
        for key in list(self._prompts):
            self.drop(key)
        if self._steps is not None:
            self._steps.release()
        self._steps = None
