"""Runs a training step as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class GraphedStep:
    """Runs `step(*inputs) -> loss` as one CUDA graph after three eager steps; eager elsewhere or when capture fails.

    These networks are narrow, so launching kernels one by one would take longer than running them.
    """

    def __init__(self, step: Callable[..., Tensor], clear: Callable[[], None], pool: object | None = None) -> None:
        self._step, self._clear, self._pool = step, clear, pool
        self._calls, self._failed = 0, False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._loss: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not inputs[0].is_cuda or self._failed:
            return self._eager(*inputs)
        if self._graph is None:
            self._calls += 1
            if self._calls <= 3:
                return self._eager(*inputs)
            self._capture(inputs)
            if self._graph is None:
                return self._eager(*inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        assert self._loss is not None
        return self._loss

    def _eager(self, *inputs: Tensor) -> Tensor:
        self._clear()
        stream = torch.cuda.Stream() if inputs[0].is_cuda else None
        if stream is None:
            return self._step(*inputs)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._step(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(t.clone() for t in inputs)
        self._clear()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._loss = self._step(*self._inputs)
        except RuntimeError as error:
            logger.warning("CUDA graph capture failed, going on without: %s", error)
            self._failed = True
            self._clear()
            torch.cuda.synchronize()
            return
        self._graph = graph
