"""All graphs of one network, in one memory: for each key that of its steps, and that of its prompt before them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.runtime.capture import CaptureError
from modules.stable_fast.runtime.capture_table import CaptureOn, GraphTable, ReplayedGraph

log = logging.getLogger(__name__)


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
