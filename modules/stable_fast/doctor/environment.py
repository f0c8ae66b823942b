"""Finds Stable-Fast's dependencies on this machine, as plain data. diagnose.py draws the conclusions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from modules.stable_fast.config import level_in_force
from modules.stable_fast.kernels.conv.cudnn_graph import HAS_CUDNN_FRONTEND
from modules.stable_fast.kernels.triton_import import HAS_TRITON, TRITON_PROBLEM, TRITON_VERSION
from modules.stable_fast.store.cache import cache_folder, why_unwritable

MORE_THAN_FREE = 512 << 20  # bytes


@dataclass(frozen=True)
class Facts:
    """Facts about this machine. Empty or None means absent."""

    system: str
    python: str
    torch: str
    torch_cuda: str | None
    gpu: str | None
    capability: tuple[int, int] | None
    memory_gib: float
    driver: str | None
    triton: str | None
    cudnn: int | None
    cudnn_frontend: str | None
    xformers: str | None
    compiler: str | None
    wsl: bool
    forced_level: str
    cache: str
    cache_mib: float
    cache_problem: str = ""  # why the cache folder is not writable
    driver_problem: str = ""  # why an installed driver cannot be used
    hidden_gpus: bool = False  # hidden by CUDA_VISIBLE_DEVICES
    triton_problem: str = ""  # why an installed Triton cannot be used
    spills: bool = False  # the driver uses system memory when the GPU's is full


def gather() -> Facts:
    has_gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if has_gpu else None
    driver, driver_problem = find_driver()
    folder = cache_folder()
    return Facts(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        gpu=properties.name if properties else None,
        capability=(properties.major, properties.minor) if properties else None,
        memory_gib=round(properties.total_memory / 2**30, 1) if properties else 0.0,
        driver=driver,
        triton=TRITON_VERSION if HAS_TRITON else None,
        cudnn=torch.backends.cudnn.version() if has_gpu else None,
        cudnn_frontend=_installed("nvidia-cudnn-frontend") if HAS_CUDNN_FRONTEND else None,
        xformers=_installed("xformers"),
        compiler=shutil.which("gcc") or shutil.which("clang") or shutil.which("cl"),
        wsl=is_wsl(),
        forced_level=level_in_force("full")[1],
        cache=str(folder),
        cache_mib=round(_size_of(folder) / 2**20, 1),
        cache_problem=why_unwritable(folder),
        driver_problem=driver_problem,
        hidden_gpus=os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"),
        triton_problem=TRITON_PROBLEM,
        spills=has_gpu and may_spill() and spills_to_system_memory(),
    )


def may_spill() -> bool:
    """Whether NVIDIA's driver can use system memory for a GPU: in Windows, and in WSL."""
    return platform.system() == "Windows" or is_wsl()


def is_wsl() -> bool:
    return "microsoft" in platform.release().lower()


def spills_to_system_memory() -> bool:
    """Whether more memory than is free on the GPU can be had. It is not touched, and freed at once."""
    free, _ = torch.cuda.mem_get_info()
    try:
        torch.empty(free + MORE_THAN_FREE, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def find_driver(kernel_module: Path = Path("/proc/driver/nvidia/version")) -> tuple[str | None, str]:
    """The version of the NVIDIA driver, and the reason if it cannot be used."""
    version, problem = _ask_driver()
    if version is None:
        with suppress(OSError):
            found = re.search(r"\d+\.\d+(\.\d+)?", kernel_module.read_text())
            return found[0] if found else None, problem or "nvidia-smi is missing"
    return version, problem


def _ask_driver() -> tuple[str | None, str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None, ""
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    said = (asked.stdout.strip() or asked.stderr.strip() or "nvidia-smi fails").splitlines()[0]
    return (None, said) if asked.returncode else (said, "")


def _size_of(folder: Path) -> int:
    """Bytes in all files under a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process has just replaced it
            total += path.lstat().st_size
    return total


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
