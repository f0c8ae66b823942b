"""Runs the Triton kernel tests in a process that selects the interpreter before importing Triton."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from modules.stable_fast.kernels.triton_import import HAS_TRITON, TRITON_VERSION


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


# Triton 3.6's interpreter turns one-element arrays into loop bounds, which NumPy 2.4 no longer allows.
LOOPS_WORK = not (HAS_TRITON and _version(str(TRITON_VERSION)) < (3, 7) and _version(numpy.__version__) >= (2, 4))
# The tests of each process. There are few of them, since a process takes seconds to start, and two workers share them.
PROCESSES = {
    "conv and linear": ["conv", "linear", "test_epilogue.py", "test_activations.py"],
    "attention, norm and gates": ["attention", "norm", "elementwise", "test_checksum.py"],
    "eight bits": ["eight_bits"],
}


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.skipif(not LOOPS_WORK, reason="this Triton's interpreter does not work with this NumPy")
@pytest.mark.parametrize("process", PROCESSES)
def test_kernels_agree_with_float64_in_the_interpreter(process: str, project_root: Path) -> None:
    paths = [f"tests/stable_fast/kernels/{name}" for name in PROCESSES[process]]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout  # not every test was deselected
