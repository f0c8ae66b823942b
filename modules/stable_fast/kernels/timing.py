"""Times a call on the GPU as in a captured program: weights not in cache, first operand in cache, no host time."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modules.core.device import end_failed_capture

REPEATS = 10
REPLAYS = 5


def _make_room() -> None:
    """During a capture PyTorch frees no memory. To free it takes milliseconds, so that is done if less than a quarter
    is left: one operation needs far less than the whole network."""
    free, total = torch.cuda.mem_get_info()
    if free < total // 4:
        torch.cuda.empty_cache()


def _captured(body: Callable[[], Any], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """Captures without torch.cuda.graph(), which would synchronise the whole device."""
    _make_room()
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    with torch.cuda.stream(stream):
        try:
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                for _ in range(REPEATS):
                    body()
            finally:
                graph.capture_end()
        except RuntimeError:
            end_failed_capture(stream.device_index, pool)
            raise
    return graph


def _replay_milliseconds(graph: torch.cuda.CUDAGraph) -> float:
    times: list[float] = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times) / REPEATS


def as_read(warm: Any) -> Tensor | None:
    """What is read to bring `warm` into the cache. PyTorch finds no maximum of e4m3, so bytes are read as integers."""
    if not isinstance(warm, Tensor):
        return None
    return warm.view(torch.int8) if warm.dtype.itemsize == 1 else warm


class GpuTimer:
    """Gives the median milliseconds of a call. Before each call, the L2 cache is overwritten, and then `warm` is read.

    In every step, a UNet's weights come from memory while its activations were just written. A plain loop would find
    everything in cache and favour the wrong implementation.
    """

    def __init__(self) -> None:
        self._preparing: dict[Any, float] = {}  # milliseconds that these preparations take, by the size of `warm`

    def __call__(self, call: Callable[[], Any], warm: Any) -> float:
        device = warm.device if isinstance(warm, Tensor) else torch.device("cuda")
        with torch.inference_mode(), torch.cuda.device(device):
            return self._time_on_current_device(call, warm)

    def _time_on_current_device(self, call: Callable[[], Any], warm: Any) -> float:
        cache_bytes = torch.cuda.get_device_properties().L2_cache_size
        flush = torch.empty(2 * cache_bytes, dtype=torch.uint8, device="cuda")
        readable = as_read(warm)

        def prepare() -> None:
            flush.zero_()
            if readable is not None:
                readable.amax()

        def both() -> None:
            prepare()
            call()

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles and picks algorithms, which a capture must not do
            both()
            both()
        stream.synchronize()
        size = (warm.shape, warm.stride(), warm.dtype, warm.device) if isinstance(warm, Tensor) else None
        milliseconds = _replay_milliseconds(_captured(both, stream))
        if size not in self._preparing:
            self._preparing[size] = _replay_milliseconds(_captured(prepare, stream))
        return max(0.0, milliseconds - self._preparing[size])


def time_on_gpu(call: Callable[[], Any], warm: Any) -> float:
    """Times a single call, as `GpuTimer` does."""
    return GpuTimer()(call, warm)
