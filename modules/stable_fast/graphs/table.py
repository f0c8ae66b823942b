"""A bounded table of captured graphs by key; what cannot be captured runs as it is, with the reason said once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.stable_fast.graphs.capture import CapturedGraph, CaptureError, GraphPool

log = logging.getLogger(__name__)


class Graph(Protocol):
    bytes: int

    def __call__(self, *inputs: Tensor) -> Any: ...
    def release(self) -> None: ...


Capture = Callable[[Callable[..., Any], Sequence[Tensor]], Graph]
CaptureOn = Callable[[torch.device], Capture]


def cuda_capture(device: torch.device, *, check_addresses: bool = False) -> Capture:
    """How graphs on `device` are captured: one pool and one stream for all of them."""
    pool = GraphPool(device)

    def capture(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Graph:
        return CapturedGraph(function, inputs, pool, check_addresses=check_addresses)

    return capture


class SharedCapture:
    """One pool and one stream a device for the graphs of several networks, of which no two run at the same time."""

    def __init__(self) -> None:
        self._captures: dict[torch.device, Capture] = {}

    def __call__(self, device: torch.device) -> Capture:
        if device not in self._captures:
            self._captures[device] = cuda_capture(device)
        return self._captures[device]


class GraphTable:
    """Graphs by key, least recently used dropped first, within a count and a memory budget.

    The key must tell apart all that a graph depends on besides its inputs' values: shapes, the type it computes in, and
    which program it runs. `reasons` records why a key runs uncaptured.
    """

    def __init__(self, capture: Capture, *, max_graphs: int = 8, max_bytes: int = 4 << 30) -> None:
        self._capture = capture
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self._max_graphs = max_graphs
        self._max_bytes = max_bytes
        self.reasons: dict[Hashable, str] = {}
        self.captures = 0

    def __len__(self) -> int:
        return len(self._graphs)

    def __contains__(self, key: object) -> bool:
        return key in self._graphs

    @property
    def bytes(self) -> int:
        return sum(graph.bytes for graph in self._graphs.values())

    def run(self, key: Hashable, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        """function(*inputs), by the graph kept under `key`, captured now if there is none yet."""
        if key not in self._graphs and key not in self.reasons:
            # Buffers outlive this call: inference tensors could not be written to outside that mode.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._add(key, function, inputs)
        graph = self._graphs.get(key)
        if graph is None:
            return function(*inputs)
        self._graphs.move_to_end(key)
        return graph(*inputs)

    def _add(self, key: Hashable, function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        while len(self._graphs) >= self._max_graphs:
            self._drop_oldest()
        try:
            graph = self._capture(function, inputs)
        except CaptureError as error:
            self._decline(key, str(error))
            return
        except torch.OutOfMemoryError:
            self.release()
            self._decline(key, "not enough GPU memory to capture")
            return
        self.captures += 1
        if graph.bytes > self._max_bytes:
            graph.release()
            self._decline(
                key, f"its graph needs {graph.bytes >> 20} MiB, more than the {self._max_bytes >> 20} allowed"
            )
            return
        self._graphs[key] = graph
        while self.bytes > self._max_bytes:
            self._drop_oldest()

    def _decline(self, key: Hashable, reason: str) -> None:
        self.reasons[key] = reason
        log.warning("Stable-Fast runs without a CUDA graph: %s", reason)

    def _drop_oldest(self) -> None:
        self._graphs.popitem(last=False)[1].release()

    def drop(self, key: Hashable) -> None:
        """Forget one key, its graph and its reason."""
        self.reasons.pop(key, None)
        graph = self._graphs.pop(key, None)
        if graph is not None:
            graph.release()

    def release(self) -> None:
        """Forget everything and give the memory back."""
        while self._graphs:
            self._drop_oldest()
        self.reasons.clear()
