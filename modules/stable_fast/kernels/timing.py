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


def _captured(body: Callable[[], Any], stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
    """Captures without torch.cuda.graph(), which would synchronise the whole device."""
    torch.cuda.empty_cache()  # during a capture PyTorch frees no memory
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


def time_on_gpu(call: Callable[[], Any], warm: Any) -> float:
    """Median milliseconds of `call`. Before each call, the L2 cache is overwritten, and then `warm` (a tensor) is read.

    In every step, a UNet's weights come from memory while its activations were just written. A plain loop would find
    everything in cache and favour the wrong implementation.
    """
    device = warm.device if isinstance(warm, Tensor) else torch.device("cuda")
    with torch.inference_mode(), torch.cuda.device(device):
        return _time_on_current_device(call, warm)


def _time_on_current_device(call: Callable[[], Any], warm: Any) -> float:
    cache_bytes = torch.cuda.get_device_properties().L2_cache_size
    flush = torch.empty(2 * cache_bytes, dtype=torch.uint8, device="cuda")

    def prepare() -> None:
        flush.zero_()
        if isinstance(warm, Tensor):
            (warm.view(torch.uint8) if warm.dtype.itemsize == 1 else warm).amax()

    def both() -> None:
        prepare()
        call()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles and picks algorithms, which a capture must not do
        both()
        both()
    stream.synchronize()
    return max(0.0, _replay_milliseconds(_captured(both, stream)) - _replay_milliseconds(_captured(prepare, stream)))
