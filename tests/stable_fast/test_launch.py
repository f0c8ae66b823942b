"""Kernels compiled ahead of their launch: each form once, in other threads, and nothing launched meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from modules.stable_fast.kernels._launch import compile_ahead, launch
from modules.stable_fast.kernels._triton import HAS_TRITON

# For a Hopper GPU that is not there: Triton asks its driver only what to compile for.
IN_A_PROCESS = """
import threading
import torch
import triton.compiler
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

class NoGpu:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def launcher_cls(self, source, metadata): launchers.append(threading.current_thread())
    class utils:
        def get_device_properties(device): return {"max_shared_mem": 1 << 18}
        def load_binary(name, binary, shared, device): return object(), object(), 32, 0, 1024

launchers = []
torch.cuda.set_device = lambda device: None
driver.set_active(NoGpu())
compile_source, threads = triton.compiler.compile, set()

def noted(*args, **kwargs):
    threads.add(threading.current_thread())
    return compile_source(*args, **kwargs)

triton.compiler.compile = noted

from modules.stable_fast.kernels._epilogue import _geglu_kernel as kernel
from modules.stable_fast.kernels._launch import compile_ahead, launch
x = torch.randn(64, dtype=torch.float16)

def run():
    for block in (64, 128, 64, 7):  # 7 is no power of two: it does not compile
        launch(kernel, (1,), x, x, 64, 32, BLOCK=block, num_warps=1)

compile_ahead(run, torch.device("cuda"))
compiled = [k for k in kernel.device_caches[0][0].values() if type(k).__name__ == "CompiledKernel"]
used = {*threads, *launchers}
print(len(compiled), {k.metadata.target.arch for k in compiled}, threading.main_thread() in used, len(launchers))
"""


class Kernel:
    """Stands in for a Triton kernel."""

    def __init__(self):
        self.launched, self.compiled = [], []

    def __getitem__(self, grid):
        return lambda *args, **options: self.launched.append((grid, args, options))

    def run(self, *args, grid, warmup, **options):
        assert warmup
        self.compiled.append((grid, args, options))


def test_a_launch_is_a_launch():
    kernel = Kernel()
    launch(kernel, (2, 3), 1, 2, BLOCK=4)
    assert kernel.launched == [((2, 3), (1, 2), {"BLOCK": 4})] and not kernel.compiled


def test_nothing_runs_ahead_without_cuda():
    compile_ahead(lambda: pytest.fail("was run"), torch.device("cpu"))


@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
def test_kernels_are_compiled_in_other_threads_and_one_that_cannot_be_is_left_out(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.split("\n")[0] == "2 {90} False 2", done.stdout + done.stderr


@pytest.mark.gpu
def test_a_kernel_compiled_ahead_runs_afterwards():
    from modules.stable_fast.kernels._epilogue import launch_geglu

    hidden = torch.randn(8, 96, device="cuda", dtype=torch.float16)
    results = []
    compile_ahead(lambda: results.append(launch_geglu(hidden)), torch.device("cuda"))
    value, gate = hidden.double().chunk(2, dim=-1)
    expected = value * torch.nn.functional.gelu(gate)
    assert torch.allclose(launch_geglu(hidden).double(), expected, atol=2e-3) and len(results) == 1
