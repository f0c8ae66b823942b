"""Chooses the device and dtype of a run, and measures memory."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.core.errors import OptionsError, quoted

DTYPE_NAMES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "fp16": torch.float16,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
    "fp32": torch.float32,
}
DEFAULT_DTYPES = {"cuda": torch.float16, "mps": torch.float16, "cpu": torch.float32}
MIB = 1024 * 1024


def choose_device(name: str | None = None) -> torch.device:
    """Returns the device called `name` ("cuda", "cuda:1", "mps", "cpu"), or the fastest one if no name is given."""
    if name is None or name.strip().lower() in ("", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _mps_available() else "cpu")
    kind, colon, index = name.strip().lower().partition(":")
    if kind not in DEFAULT_DTYPES or (colon and not re.fullmatch(r"[0-9]{1,4}", index)) or (colon and kind != "cuda"):
        raise OptionsError(f"Unknown device {quoted(name)}; choose cuda, cuda:<number>, mps or cpu.")
    if kind == "cuda":
        return _cuda_device(int(index or 0))
    if kind == "mps" and not _mps_available():
        raise OptionsError("Device mps is not available (it needs an Apple GPU); use --device cpu.")
    return torch.device(kind)


def choose_dtype(device: torch.device, name: str | None = None) -> torch.dtype:
    """Returns the dtype called `name`; the default is float16 on GPUs and float32 on the CPU."""
    if name is None or name.strip().lower() in ("", "auto"):
        return DEFAULT_DTYPES.get(device.type, torch.float32)
    dtype = DTYPE_NAMES.get(name.strip().lower())
    if dtype is None:
        raise OptionsError(f"Unknown number type {quoted(name)}; choose float16, bfloat16 or float32.")
    if dtype == torch.bfloat16 and device.type == "cuda" and not has_bfloat16(device):
        raise OptionsError(f"{torch.cuda.get_device_name(device)} does not support bfloat16; use --dtype float16.")
    return dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether this is an NVIDIA GPU that computes in bfloat16."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def free_memory(device: torch.device) -> int:
    """Returns the bytes that this process can still use on the device; what torch reserves but does not use counts.

    A limit set by `torch.cuda.set_per_process_memory_fraction` holds.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        is_numbered = device != torch.device(device.type)
        index = device.index if is_numbered else torch.cuda.current_device()  # the next call takes no "cuda" alone
        allowed = int(total * torch.cuda.get_per_process_memory_fraction(index))
        return min(free + torch.cuda.memory_reserved(device), allowed) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return _free_ram()


@contextmanager
def made_current(device: torch.device) -> Iterator[None]:
    """Makes this GPU the current one inside the block: calls without a device would otherwise use the first GPU."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a CPU tensor to the device. An NVIDIA GPU gets it after the work it has; the caller does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(tensor: Tensor) -> Tensor:
    """Copies a tensor that its GPU has finished to the CPU. Does not wait for later work of the GPU."""
    if not tensor.is_cuda:
        return tensor.cpu()
    with torch.cuda.stream(_fetching_stream(tensor.device)):
        return tensor.cpu()


@cache
def _fetching_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def raise_if_broken() -> None:
    """Raises AcceleratorError after a GPU fault, when every call fails and each library reports it differently."""
    if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()


def end_failed_capture(device_index: int, handle: Any) -> None:
    """Ends a capture in that pool that PyTorch before 2.12 may still consider active.

    Until the capture ends, PyTorch does not free cached memory for other allocations (pytorch#180395).
    """
    with suppress(RuntimeError):  # raised when no capture is running
        torch._C._cuda_endAllocateToPool(device_index, handle)  # pyright: ignore[reportPrivateUsage]


def lacks_memory(error: BaseException) -> bool:
    """Returns True if memory ran out; the CPU allocator, cuBLAS and CUDA report this only in the message text."""
    words = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def release_memory(device: torch.device) -> None:
    """Gives the memory that torch has reserved back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """Bytes used by this process. Device fields are None on the CPU; peaks cover the lifetime of the process."""

    resident: int
    resident_peak: int
    device_allocated: int | None = None
    device_peak: int | None = None
    device_total: int | None = None

    def __str__(self) -> str:
        text = f"RAM {self.resident // MIB} MiB (peak {self.resident_peak // MIB})"
        if self.device_allocated is None or self.device_peak is None or self.device_total is None:
            return text
        used, peak, total = (value // MIB for value in (self.device_allocated, self.device_peak, self.device_total))
        return f"{text}, GPU {used} MiB (peak {peak}) of {total}"


def memory_report(device: torch.device | None = None) -> MemoryReport:
    """Measures this process's memory use in RAM and, for a CUDA device, on the GPU."""
    resident, peak = _resident_memory()
    if device is None or device.type != "cuda":
        return MemoryReport(resident=resident, resident_peak=peak)
    return MemoryReport(
        resident=resident,
        resident_peak=peak,
        device_allocated=torch.cuda.memory_allocated(device),
        device_peak=torch.cuda.max_memory_allocated(device),
        device_total=torch.cuda.mem_get_info(device)[1],
    )


def _mps_available() -> bool:
    return torch.backends.mps.is_available()


def _cuda_device(index: int) -> torch.device:
    if not torch.cuda.is_available():
        reason = "this torch was built without CUDA" if torch.version.cuda is None else "no NVIDIA GPU or driver found"
        raise OptionsError(f"Device cuda is not available ({reason}); use --device cpu.")
    count = torch.cuda.device_count()
    if index >= count:
        raise OptionsError(f"There is no device cuda:{index}; this machine has cuda:0 to cuda:{count - 1}.")
    return torch.device("cuda", index)


def _status_bytes(path: Path, key: str) -> int | None:
    """Reads one `Key:  123 kB` line of a /proc file."""
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _free_ram() -> int:
    available = _status_bytes(Path("/proc/meminfo"), "MemAvailable")
    if available is not None:
        return available
    if sys.platform == "win32":
        return _windows_free_ram()
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS: nothing better without tools


def _resident_memory() -> tuple[int, int]:
    """Returns the current and peak resident bytes; if the system reports only the peak, both are the peak."""
    status = Path("/proc/self/status")
    now, peak = _status_bytes(status, "VmRSS"), _status_bytes(status, "VmHWM")
    if now is not None:
        return now, peak if peak is not None else now
    if sys.platform == "win32":
        return 0, 0
    import resource  # POSIX only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def _windows_free_ram() -> int:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "available", "total_page", "free_page", "total_virtual", "free_virtual", "extended")
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.available)
