"""One function of tensors, captured as a CUDA graph: copy inputs in, replay, return copies of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from modules.core.device import end_failed_capture

WARM_UPS = 2


class CaptureError(Exception):
    """The function cannot be captured; the message contains the reason."""


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream per device and process, because each stream keeps separate memory in PyTorch's cache."""
    return torch.cuda.Stream(device)


@contextmanager
def own_workspaces() -> Iterator[None]:
    """Makes graphs captured inside take cuBLAS's workspaces from their own memory.

    Otherwise a graph records the address of its stream's workspace, which others may free before a replay:
    torch.compile when it captures, and since PyTorch 2.12 each reset of another graph of the stream (pytorch#193402).
    """
    torch._C._cuda_clearCublasWorkspaces()  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()  # pyright: ignore[reportPrivateUsage]


class GraphPool:
    """Captures graphs into one memory pool, on one stream. Graphs share both, since no two run at once.

    PyTorch frees a pool's memory only when no graph is left in the pool. `bytes` is the size of the pool.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self._stream = _capture_stream(device)
        self._handle: Any = None
        self._graphs: WeakSet[CapturedGraph] = WeakSet()

    @property
    def is_empty(self) -> bool:
        return not self._graphs

    def __call__(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> CapturedGraph:
        """Raises CaptureError or OutOfMemoryError."""
        return CapturedGraph(function, inputs, self)

    def start_over(self) -> None:
        """Releases all graphs, even those still referenced, and frees the memory."""
        for graph in list(self._graphs):
            graph.release()
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Compiles kernels, picks algorithms and fills libraries' workspaces. None of this is allowed in a capture."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                function()
        self._stream.synchronize()

    def record(self, owner: CapturedGraph, graph: torch.cuda.CUDAGraph, function: Callable[[], Any]) -> tuple[Any, int]:
        """Captures function() into `graph`. Returns its result and the pool's growth in bytes."""
        if self.is_empty:
            self._handle, self.bytes = None, 0
        if self._handle is None:
            self._handle = torch.cuda.graph_pool_handle()
        # thread_local: other threads (the web interface) may use the GPU meanwhile.
        recording = torch.cuda.graph(graph, pool=self._handle, stream=self._stream, capture_error_mode="thread_local")
        # Enter the stream here: torch.cuda.graph does not leave its own stream when a capture fails.
        with torch.cuda.stream(self._stream), own_workspaces():
            torch.cuda.empty_cache()  # a capture would do this first and hide how much it reserves
            reserved = torch.cuda.memory_reserved(self.device)
            try:
                with recording:
                    outputs = function()
            except BaseException as error:
                handle, self._handle = self._handle, None  # no capture uses it again
                end_failed_capture(self._stream.device_index, handle)
                if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError):
                    # CUDA and PyTorch raise this for operations forbidden during a capture
                    raise CaptureError(str(error).splitlines()[0]) from error
                raise
            grown = max(0, torch.cuda.memory_reserved(self.device) - reserved)
        self._graphs.add(owner)
        self.bytes += grown
        return outputs, grown

    def forget(self, graph: CapturedGraph) -> None:
        self._graphs.discard(graph)


class CapturedGraph:
    """A recording of `function(*inputs)`. Calls replay the recording on the current stream.

    Only the values of the inputs may change between calls, not their shapes. Inputs are converted to the recorded dtype
    and layout. Anything else that the function reads (weights, prompt values) must stay at its address and be changed
    in place. Outputs are copies, so later replays do not overwrite them. `bytes`: how much the pool grew during the
    capture.
    """

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor], pool: GraphPool) -> None:
        self.is_released = False
        self._pool = pool
        self._inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        self._graph = torch.cuda.CUDAGraph()

        def body() -> Any:
            return function(*self._inputs)

        pool.warm_up(body)
        outputs, self.bytes = pool.record(self, self._graph, body)
        self._outputs, self._form = pytree.tree_flatten(outputs)

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        for buffer, value in zip(self._inputs, inputs, strict=True):
            assert buffer.shape == value.shape, "a captured graph serves one shape"
            buffer.copy_(value)
        self._graph.replay()
        copies = [output.clone() if isinstance(output, Tensor) else output for output in self._outputs]
        return pytree.tree_unflatten(copies, self._form)

    def release(self) -> None:
        """Frees the memory. The graph cannot be called again."""
        if not self.is_released:
            self.is_released = True
            self._graph.reset()
            self._inputs, self._outputs = [], []
            self._pool.forget(self)
