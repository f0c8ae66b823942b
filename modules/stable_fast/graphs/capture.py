"""One function of tensors, captured as a CUDA graph: copy inputs in, replay, hand out copies of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

WARM_UPS = 2


class CaptureError(Exception):
    """The function cannot be captured; the message says why."""


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for each device and process: a stream keeps memory of its own in PyTorch's cache."""
    return torch.cuda.Stream(device)


@contextmanager
def own_workspaces() -> Iterator[None]:
    """What is captured inside takes cuBLAS's workspaces from the graph's own memory.

    Otherwise it records the address of the one that its stream happens to have, which others may free before a replay:
    torch.compile when it captures, and since PyTorch 2.12 every graph of the stream that is reset (pytorch#193402).
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


class GraphPool:
    """The memory and the capture stream that graphs share, since no two of them run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = _capture_stream(device)
        self._handle: Any = None
        self._users = 0

    def join(self) -> Any:
        """The memory pool; a fresh one when no graph lives in it, because an empty pool is given back."""
        if self._users == 0:
            self._handle = torch.cuda.graph_pool_handle()
        self._users += 1
        return self._handle

    def leave(self) -> None:
        self._users -= 1


class CapturedGraph:
    """`function(*inputs)` recorded once; a call replays it on the current stream.

    Only the inputs may change between calls, not in shape; their type and layout become those of the recorded ones.
    Anything else the function reads (weights, prompt values) must stay at its address and be changed in place.
    `watched` names such tensors: with `check_addresses`, a call asserts that they have not moved. Outputs are copies,
    so no later replay overwrites them.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        pool: GraphPool,
        *,
        watched: Sequence[Tensor] = (),
        check_addresses: bool = False,
    ) -> None:
        self._pool = pool
        self._inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        self._watched = tuple(watched) if check_addresses else ()
        self._addresses = [x.data_ptr() for x in self._watched]
        self._graph = torch.cuda.CUDAGraph()
        self._warm_up(function)
        torch.cuda.empty_cache()  # a capture does so first, which would hide what it reserves itself
        reserved = torch.cuda.memory_reserved(pool.device)
        handle = pool.join()
        try:
            outputs = self._capture(function, handle)
        except BaseException:
            pool.leave()
            raise
        self._outputs, self._form = pytree.tree_flatten(outputs)
        self.bytes = max(0, torch.cuda.memory_reserved(pool.device) - reserved)

    def _warm_up(self, function: Callable[..., Any]) -> None:
        """Compiles kernels, picks algorithms and fills library workspaces, none of which may happen in a capture."""
        stream = self._pool.stream
        stream.wait_stream(torch.cuda.current_stream(self._pool.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*self._inputs)
        stream.synchronize()

    def _capture(self, function: Callable[..., Any], handle: Any) -> Any:
        # thread_local: other threads (the web interface) may use the GPU meanwhile.
        recording = torch.cuda.graph(
            self._graph, pool=handle, stream=self._pool.stream, capture_error_mode="thread_local"
        )
        try:
            with own_workspaces(), recording:
                return function(*self._inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what CUDA and PyTorch raise for an operation that a capture forbids
            raise CaptureError(str(error).splitlines()[0]) from error

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        for buffer, value in zip(self._inputs, inputs, strict=True):
            assert buffer.shape == value.shape, "a captured graph serves one shape"
            buffer.copy_(value)
        for tensor, address in zip(self._watched, self._addresses, strict=True):
            assert tensor.data_ptr() == address, "a tensor that the captured graph reads has moved"
        self._graph.replay()
        copies = [output.clone() if isinstance(output, Tensor) else output for output in self._outputs]
        return pytree.tree_unflatten(copies, self._form)

    def release(self) -> None:
        """Give the memory back; the graph cannot be called again."""
        self._graph.reset()
        self._inputs, self._outputs, self._watched = [], [], ()
        self._pool.leave()
