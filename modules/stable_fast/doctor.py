"""What Stable-Fast can do on this machine, why not more, and what to do: `python -m modules.stable_fast.doctor`.

`diagnose()` gathers facts and draws conclusions as plain data; `main()` prints them. It ends with 0 also where nothing
but level `off` works, since that is an answer; with 1 when a kernel gives wrong results.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from modules.stable_fast import cache
from modules.stable_fast.config import LEVELS, level_in_force
from modules.stable_fast.kernels._cudnn_graph import HAS_CUDNN_FRONTEND
from modules.stable_fast.kernels._triton import HAS_TRITON, TRITON_PROBLEM, TRITON_VERSION
from modules.stable_fast.kernels.self_test import OpCheck, check_all

MINIMUM_CAPABILITY = (7, 5)


@dataclass(frozen=True)
class Facts:
    """What was found on the machine; empty or None means absent."""

    system: str
    python: str
    torch: str
    torch_cuda: str | None
    gpu: str | None
    capability: tuple[int, int] | None
    memory_gib: float
    driver_file: bool
    triton: str | None
    cudnn: int | None
    cudnn_frontend: str | None
    xformers: str | None
    compiler: str | None
    wsl: bool
    forced_level: str
    triton_problem: str = ""  # why an installed Triton cannot be used


@dataclass(frozen=True)
class Level:
    """Whether a level works here; if not, why, and the remedy."""

    name: str
    works: bool
    reason: str = ""


@dataclass(frozen=True)
class Diagnosis:
    facts: Facts
    levels: tuple[Level, ...]
    advice: tuple[str, ...]
    checks: tuple[OpCheck, ...] = field(default=())

    @property
    def failed(self) -> tuple[OpCheck, ...]:
        return tuple(check for check in self.checks if not check.passed)


def gather() -> Facts:
    has_gpu = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if has_gpu else None
    return Facts(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        gpu=properties.name if properties else None,
        capability=(properties.major, properties.minor) if properties else None,
        memory_gib=round(properties.total_memory / 2**30, 1) if properties else 0.0,
        driver_file=Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
        triton=TRITON_VERSION if HAS_TRITON else None,
        cudnn=torch.backends.cudnn.version() if has_gpu else None,
        cudnn_frontend=_installed("nvidia-cudnn-frontend") if HAS_CUDNN_FRONTEND else None,
        xformers=_installed("xformers"),
        compiler=shutil.which("gcc") or shutil.which("clang") or shutil.which("cl"),
        wsl="microsoft" in platform.release().lower(),
        forced_level=level_in_force("full")[1],
        triton_problem=TRITON_PROBLEM,
    )


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def no_gpu_reason(facts: Facts) -> str:
    """Why PyTorch sees no GPU, most fundamental cause first; empty when it sees one."""
    if facts.gpu is not None:
        return ""
    if facts.torch_cuda is None:
        return "PyTorch is a CPU build: install a CUDA build of torch"
    if not facts.driver_file and facts.wsl:
        return "no NVIDIA driver in WSL: install the NVIDIA driver in Windows (not inside WSL) and run `wsl --update`"
    if not facts.driver_file:
        return "no NVIDIA driver found: install the NVIDIA driver"
    return f"the driver does not offer CUDA {facts.torch_cuda}: update the NVIDIA driver, then restart"


def judge(facts: Facts) -> tuple[Level, ...]:
    """Which levels work. `fused` runs on anything, by plain PyTorch where kernels are missing."""
    no_gpu = no_gpu_reason(facts)
    capture = no_gpu and f"CUDA graphs need an NVIDIA GPU ({no_gpu})"
    levels = {
        "off": Level("off", works=True),
        "graph": Level("graph", works=not capture, reason=capture),
        "fused": Level("fused", works=True, reason=kernels_reason(facts)),
        "full": Level("full", works=not capture, reason=capture or kernels_reason(facts)),
    }
    if not facts.forced_level:
        return tuple(levels[name] for name in LEVELS)
    allowed = facts.forced_level.partition("=")[2]
    return tuple(
        levels[name]
        if LEVELS.index(name) <= LEVELS.index(allowed)
        else Level(name, works=False, reason=facts.forced_level)
        for name in LEVELS
    )


def kernels_reason(facts: Facts) -> str:
    """Why fused operations run as plain PyTorch here; empty where the kernels run."""
    if facts.gpu is None:
        return "staged and fused, without GPU kernels"
    if facts.triton is None:
        if facts.triton_problem:
            return (
                "fused operations run as plain PyTorch, since the installed Triton cannot be imported: install it again"
            )
        package = "triton-windows" if facts.system.startswith("Windows") else "triton"
        return f"fused operations run as plain PyTorch without Triton: pip install {package}"
    if facts.capability is not None and facts.capability < MINIMUM_CAPABILITY:
        return (
            f"fused operations run as plain PyTorch on compute capability {facts.capability[0]}.{facts.capability[1]}"
        )
    if facts.compiler is None:
        return "Triton needs a C compiler once to load kernels: install gcc (Linux) or the MSVC build tools (Windows)"
    return ""


def advise(facts: Facts) -> tuple[str, ...]:
    """What would make it faster, or spare trouble."""
    found = [reason for reason in (no_gpu_reason(facts),) if reason]
    if facts.gpu is None:
        return tuple(found)
    if kernels_reason(facts):
        found.append(kernels_reason(facts))
    if facts.cudnn_frontend is None:
        found.append("fused convolutions by cuDNN are off: pip install nvidia-cudnn-frontend==1.18.0 (optional)")
    if facts.capability is not None and facts.capability < (8, 0):
        found.append("this GPU has no bfloat16 and no flash attention: use fp16")
    if 0 < facts.memory_gib < 6:
        found.append(f"{facts.memory_gib} GiB of GPU memory: prefer level fused, since captured graphs hold memory")
    if "rc" in facts.torch or "dev" in facts.torch:
        found.append(f"torch {facts.torch} is a preview: if something fails, try a release")
    return tuple(found)


def diagnose(*, self_test: bool = True, facts: Facts | None = None) -> Diagnosis:
    """The facts, the levels, advice, and every kernel against its reference on the device that would be used."""
    facts = facts or gather()
    checks: tuple[OpCheck, ...] = ()
    if self_test:
        device, dtype = ("cuda", torch.float16) if facts.gpu is not None else ("cpu", torch.float32)
        checks = tuple(check_all(torch.device(device), dtype))
    return Diagnosis(facts, judge(facts), advise(facts), checks)


def lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis for people."""
    facts = diagnosis.facts
    gpu = facts.gpu and f"{facts.gpu}, compute capability {'.'.join(map(str, facts.capability or ()))}"
    rows = {
        "system": facts.system + (" (WSL)" if facts.wsl else ""),
        "python": facts.python,
        "torch": f"{facts.torch}, CUDA {facts.torch_cuda or 'none'}",
        "GPU": f"{gpu}, {facts.memory_gib} GiB" if gpu else "none",
        "Triton": f"cannot be imported ({facts.triton_problem})" if facts.triton_problem else facts.triton,
        "cuDNN": facts.cudnn,
        "cuDNN frontend": facts.cudnn_frontend,
        "xformers": facts.xformers,
        "C compiler": facts.compiler,
        "cache": cache.cache_folder(),
    }
    said = [f"{name:15s} {value or 'not found'}" for name, value in rows.items()]
    said += ["", "Levels of Stable-Fast on this machine:"]
    for level in diagnosis.levels:
        state = "works" if level.works else "does not work"
        said.append(f"  {level.name:6s} {state}" + (f": {level.reason}" if level.reason else ""))
    said += _check_lines(diagnosis)
    said += ["", *(f"Advice: {advice}." for advice in diagnosis.advice)] if diagnosis.advice else []
    if [level.name for level in diagnosis.levels if level.works] == ["off"]:
        said.append("Only level off works here: pictures are made as usual, without acceleration.")
    return said


def _check_lines(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.checks:
        return []
    by_op: dict[str, list[OpCheck]] = {}
    for check in diagnosis.checks:
        if not check.refused:
            by_op.setdefault(check.op, []).append(check)
    said = ["", "Fused operations against their float64 references:"]
    for op, checks in by_op.items():
        names = ", ".join(dict.fromkeys(check.implementation for check in checks if check.implementation != "chosen"))
        worst = max(check.error for check in checks)
        state = "ok" if all(check.passed for check in checks) else "WRONG"
        said.append(f"  {op:22s} {state}, largest relative error {worst:.1e} ({names or 'plain PyTorch'})")
    for check in diagnosis.failed:
        what = f"{check.op} by {check.implementation} at {check.shape}"
        if check.fault:
            said.append(f"  FAULT: {what}: {check.fault}; nothing more was tried: please report it; use level graph")
        else:
            said.append(f"  WRONG: {what}: please report it; use level graph")
    return said


def main(write: Callable[[str], object] = sys.stdout.write) -> int:
    diagnosis = diagnose()
    write("\n".join(lines(diagnosis)) + "\n")
    return 1 if diagnosis.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
