"""Reports what Stable-Fast can do on this machine and what limits it: `python -m modules.stable_fast.doctor`.

`diagnose()` returns facts and conclusions as plain data; `main()` prints them. The exit code
is 1 if a kernel gives wrong results or makes the GPU fault, else 0, even if only level `off` works.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from modules.core.errors import OptionsError
from modules.stable_fast.config import LEVELS, Level
from modules.stable_fast.doctor.environment import Facts, gather
from modules.stable_fast.doctor.self_test import OpCheck, check_all
from modules.stable_fast.store.cache import CACHE_VARIABLE

MINIMUM_CAPABILITY = (7, 5)
CUDA_BUILD = 'pip install --force-reinstall "torch>=2.11,<2.14" --index-url https://download.pytorch.org/whl/{}'
CUDA_13_DRIVER = 580  # the first driver that runs CUDA 13; older ones run CUDA 12.6
USAGE = """usage: python -m modules.stable_fast.doctor [--json]

Says what Stable-Fast can do on this machine and what is missing for more, and tests its kernels; --json as one object.
Exit code 1: a kernel gives wrong results or makes the GPU fault.
"""


@dataclass(frozen=True)
class Verdict:
    """Whether a level works here. If it does not fully work, `reason` explains why and how to fix it."""

    name: str
    works: bool
    reason: str = ""


@dataclass(frozen=True)
class Diagnosis:
    facts: Facts
    levels: tuple[Verdict, ...]
    advice: tuple[str, ...]
    checks: tuple[OpCheck, ...] = field(default=())
    memory: str = ""  # how the caller's checkpoint fits

    @property
    def failed(self) -> tuple[OpCheck, ...]:
        return tuple(check for check in self.checks if not check.passed)

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0


def no_gpu_reason(facts: Facts) -> str:
    """The most fundamental reason why PyTorch sees no GPU; empty if it sees one."""
    if facts.gpu is not None:
        return ""
    if facts.system.startswith("Darwin"):
        return "macOS has no CUDA"
    is_cpu_build = facts.torch_cuda is None
    if facts.driver_problem:
        return (
            f"the NVIDIA driver does not answer ({facts.driver_problem}): give a container the GPU (docker run "
            "--gpus all); elsewhere restart the computer, or install the driver again"
        )
    if facts.driver is None:
        where, how = (" in WSL", " in Windows (not inside WSL) and run `wsl --update`") if facts.wsl else ("", "")
        build, then = (", and PyTorch is a CPU build", ", then a CUDA build of torch") if is_cpu_build else ("", "")
        return f"no NVIDIA driver found{where}{build}: install the NVIDIA driver{how}{then}"
    if is_cpu_build:
        return f"NVIDIA driver {facts.driver} found, but PyTorch is a CPU build: install a CUDA build of torch"
    if facts.hidden_gpus:
        return "CUDA_VISIBLE_DEVICES hides the GPU: unset it"
    return f"the driver does not offer CUDA {facts.torch_cuda}: update the NVIDIA driver, then restart"


def judge(facts: Facts) -> tuple[Verdict, ...]:
    """Which levels work. `fused` runs on any device, with plain PyTorch where kernels are missing."""
    no_gpu, kernels = no_gpu_reason(facts), kernels_reason(facts)
    no_graphs = no_gpu and f"CUDA graphs need an NVIDIA GPU ({no_gpu})"
    highest = Level(facts.forced_level.partition("=")[2] or Level.FULL)

    def verdict(level: Level) -> Verdict:
        if LEVELS.index(level) > LEVELS.index(highest):
            return Verdict(level.value, works=False, reason=facts.forced_level)
        obstacle = no_graphs if level.captured else ""
        return Verdict(level.value, works=not obstacle, reason=obstacle or (kernels if level.fused else ""))

    return tuple(map(verdict, LEVELS))


def kernels_reason(facts: Facts) -> str:
    """Why fused operations run as plain PyTorch here; empty if the kernels run."""
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
    """Advice on how to speed Stable-Fast up or avoid problems."""
    found = [reason for reason in (no_gpu_reason(facts),) if reason]
    if facts.cache_problem:
        found.append(
            f"nothing can be kept in {facts.cache} ({facts.cache_problem}), so each start compiles anew: name a folder "
            f"that can be written in {CACHE_VARIABLE}"
        )
    if facts.gpu is None:
        if facts.torch_cuda is None and not facts.system.startswith("Darwin"):
            found.append(f"{cuda_build(facts.driver)} (in .venv) installs a CUDA build of torch")
        return tuple(found)
    if kernels_reason(facts):
        found.append(kernels_reason(facts))
    if facts.cudnn_frontend is None:
        found.append("fused convolutions by cuDNN are off: pip install nvidia-cudnn-frontend==1.18.0 (optional)")
    if facts.capability is not None and facts.capability < (8, 0):
        found.append("this GPU has no bfloat16 and no flash attention: use fp16")
    if 0 < facts.memory_gib < 6:
        found.append(f"{facts.memory_gib} GiB of GPU memory: prefer level fused, since captured graphs hold memory")
    if facts.spills:
        found.append(
            "when GPU memory is full, the driver goes on in system memory, many times slower and without an error: in "
            "the NVIDIA Control Panel, under Manage 3D settings, set CUDA - Sysmem Fallback Policy to Prefer No Sysmem "
            "Fallback"
        )
    if "rc" in facts.torch or "dev" in facts.torch:
        found.append(f"torch {facts.torch} is a preview: if something fails, try a release")
    return tuple(found)


def cuda_build(driver: str | None) -> str:
    """The command that installs a CUDA build of torch that this driver runs; for a new driver if there is none."""
    major = (driver or "").partition(".")[0]
    is_old = major.isdecimal() and int(major) < CUDA_13_DRIVER
    return CUDA_BUILD.format("cu126" if is_old else "cu130")


def diagnose(*, self_test: bool = True, facts: Facts | None = None, memory: str = "") -> Diagnosis:
    """Facts, levels and advice, plus a check of every kernel against its reference on the device to be used."""
    facts = facts or gather()
    checks: tuple[OpCheck, ...] = ()
    if self_test:
        device, dtype = ("cuda", torch.float16) if facts.gpu is not None else ("cpu", torch.float32)
        checks = tuple(check_all(torch.device(device), dtype))
    return Diagnosis(facts, judge(facts), advise(facts), checks, memory)


def lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis as text for people."""
    facts = diagnosis.facts
    gpu = facts.gpu and f"{facts.gpu}, compute capability {'.'.join(map(str, facts.capability or ()))}"
    state = f"cannot be written ({facts.cache_problem})" if facts.cache_problem else "can be written"
    rows = {
        "system": facts.system + (" (WSL)" if facts.wsl else ""),
        "python": facts.python,
        "torch": f"{facts.torch}, CUDA {facts.torch_cuda or 'none'}",
        "NVIDIA driver": facts.driver or facts.driver_problem,
        "GPU": f"{gpu}, {facts.memory_gib} GiB" if gpu else "none",
        "Triton": f"cannot be imported ({facts.triton_problem})" if facts.triton_problem else facts.triton,
        "cuDNN": facts.cudnn,
        "cuDNN frontend": facts.cudnn_frontend,
        "xformers": facts.xformers,
        "C compiler": facts.compiler,
        "cache": f"{facts.cache}, {state}, {facts.cache_mib} MiB",
    }
    rows |= {"memory": diagnosis.memory} if diagnosis.memory else {}
    said = [f"{name:15s} {value or 'not found'}" for name, value in rows.items()]
    said += ["", "Levels of Stable-Fast on this machine:"]
    for verdict in diagnosis.levels:
        state = "works" if verdict.works else "does not work"
        said.append(f"  {verdict.name:6s} {state}" + (f": {verdict.reason}" if verdict.reason else ""))
    said += _check_lines(diagnosis)
    said += ["", *(f"Advice: {advice}." for advice in diagnosis.advice)] if diagnosis.advice else []
    if not any(verdict.works for verdict in diagnosis.levels if verdict.name != Level.OFF):
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


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as data for programs. A non-finite error becomes null, since JSON cannot represent it."""
    checks = [
        asdict(check) | {"error": check.error if math.isfinite(check.error) else None, "passed": check.passed}
        for check in diagnosis.checks
    ]
    return asdict(diagnosis) | {"checks": checks, "exit_code": diagnosis.exit_code}


def main(arguments: Sequence[str] = (), write: Callable[[str], object] | None = None, *, memory: str = "") -> int:
    """Passes the diagnosis to `write` (by default standard output) and returns the exit code.

    `memory` says how the caller's checkpoint fits into memory.
    """
    say = write or sys.stdout.write
    if {"-h", "--help"} & set(arguments):
        say(USAGE)
        return 0
    as_json = "--json" in arguments
    try:
        if unknown := [argument for argument in arguments if argument != "--json"]:
            raise OptionsError(f"the doctor has no argument {unknown[0]}; see --help.")
        diagnosis = diagnose(memory=memory)
    except OptionsError as error:
        if as_json:
            say(json.dumps({"error": str(error), "exit_code": error.exit_code}) + "\n")
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    say((json.dumps(to_dict(diagnosis)) if as_json else "\n".join(lines(diagnosis))) + "\n")
    return diagnosis.exit_code
