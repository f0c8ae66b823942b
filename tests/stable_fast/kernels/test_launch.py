"""Kernels are compiled before their launch: each variant once, in other threads, and without launching anything."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import as_completed
from types import SimpleNamespace

import pytest
import torch

from modules.stable_fast.kernels import launch as launch_file
from modules.stable_fast.kernels.launch import compile_ahead, launch_kernel, wake_compiler
from modules.stable_fast.kernels.triton_import import HAS_TRITON

# Compiles for a Hopper GPU without having one. Triton only queries the driver for the compilation target.
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

from modules.stable_fast.kernels.epilogue import geglu_kernel as kernel
from modules.stable_fast.kernels.launch import compile_ahead, launch_kernel
x = torch.randn(64, dtype=torch.float16)

def run():
    for block in (64, 128, 64, 7):  # 7 is no power of two: it does not compile
        launch_kernel(kernel, (1,), x, x, 64, 32, BLOCK=block, num_warps=1)

ordered = compile_ahead(run, torch.device("cuda", 0))
compiled = [k for k in kernel.device_caches[0][0].values() if type(k).__name__ == "CompiledKernel"]
used = {*threads, *launchers}
archs = {k.metadata.target.arch for k in compiled}
print(len(compiled), archs, threading.main_thread() in used, len(launchers), ordered)
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
    launch_kernel(kernel, (2, 3), 1, 2, BLOCK=4)
    assert kernel.launched == [((2, 3), (1, 2), {"BLOCK": 4})] and not kernel.compiled


def test_nothing_runs_ahead_without_cuda():
    assert compile_ahead(lambda: pytest.fail("was run"), torch.device("cpu")) == 0


def test_the_compiler_is_woken_once_and_for_a_gpu_only(monkeypatch):
    woken = []
    for name, value in (("HAS_TRITON", True), ("INTERPRETED", False), ("_waking", woken.append)):
        monkeypatch.setattr(launch_file, name, value)
    for name in ("cpu", "cuda:0", "meta"):
        wake_compiler(torch.device(name))
    assert woken == [0]


@pytest.mark.skipif(not HAS_TRITON or torch.cuda.is_available(), reason="needs Triton and no GPU")
def test_a_compiler_that_cannot_be_woken_says_nothing(caplog, capfd):
    launch_file._waking.cache_clear()
    launch_file._waking(0).join()
    launch_file._waking.cache_clear()
    assert caplog.text == "" and capfd.readouterr().err == ""


class LeavesItselfBehind:
    """Like Triton 3.6's mode: after an interrupt during its wait, it stays active, and no second mode can start."""

    active = launch_file.ContextVar("active", default=None)

    def __init__(self, workers, *, ignore_errors):
        self.workers, self.ordered = workers, []

    def __enter__(self):
        assert self.active.get() is None, "another one is active"
        self.active.set(self)
        return self

    def __exit__(self, *reason):
        for future in as_completed(self.ordered):
            future.exception()
        self.active.set(None)


@pytest.fixture
def without_gpu(monkeypatch):
    for name, value in (("HAS_TRITON", True), ("INTERPRETED", False), ("AsyncCompileMode", LeavesItselfBehind)):
        monkeypatch.setattr(launch_file, name, value)
    monkeypatch.setattr(launch_file, "_cores", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(launch_file, "_waking", lambda index: SimpleNamespace(join=lambda: None))


class Compiled:
    run = None


def test_an_interrupt_stops_at_once_and_leaves_nothing_behind(without_gpu):
    def order(count, last=lambda: None):
        mode = LeavesItselfBehind.active.get()
        mode.ordered += [mode.workers.submit(lambda: time.sleep(0.2) or Compiled()) for _ in range(count)]
        last()

    def interrupt():
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compile_ahead(lambda: order(50, interrupt), torch.device("cuda", 0))
    assert time.monotonic() - began < 5  # the current task finishes, and the other 49 never start
    kernel = Kernel()
    launch_kernel(kernel, (1,))
    assert kernel.launched and LeavesItselfBehind.active.get() is None
    compile_ahead(lambda: order(1), torch.device("cuda", 0))


@pytest.mark.parametrize("error", [SystemError("AST constructor recursion depth mismatch"), RuntimeError("a library")])
def test_nothing_that_goes_wrong_while_only_compiling_ends_the_request(without_gpu, error):
    def fail():
        raise error

    def order():
        mode = LeavesItselfBehind.active.get()
        mode.ordered.append(mode.workers.submit(fail))  # in a worker ...
        fail()  # ... and in the run itself

    compile_ahead(order, torch.device("cuda", 0))
    assert LeavesItselfBehind.active.get() is None


@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
def test_triton_parses_one_kernel_at_a_time(monkeypatch):
    import ast
    from concurrent.futures import ThreadPoolExecutor

    from modules.stable_fast.kernels.epilogue import geglu_kernel as kernel

    parse, at_once, most = ast.parse, [], []

    def watched(source):
        at_once.append(source)
        most.append(len(at_once))
        time.sleep(0.005)
        at_once.pop()
        return parse(source)

    monkeypatch.setattr(ast, "parse", watched)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: kernel.parse(), range(32)))
    assert max(most) == 1


def test_a_device_without_a_number_is_the_current_one(without_gpu, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)

    def run():
        mode = LeavesItselfBehind.active.get()
        mode.ordered.append(mode.workers.submit(Compiled))

    compile_ahead(run, torch.device("cuda"))
    assert chosen == [1]


@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
def test_kernels_are_compiled_in_other_threads_and_one_that_cannot_be_is_left_out(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    # Launchers of two kernels of the run, and of the one that wakes the compiler; three kernels of the run were tried.
    assert done.stdout.split("\n")[0] == "2 {90} False 3 3", done.stdout + done.stderr


@pytest.mark.gpu
def test_a_kernel_compiled_ahead_runs_afterwards():
    from modules.stable_fast.kernels.epilogue import launch_geglu

    hidden = torch.randn(8, 96, device="cuda", dtype=torch.float16)
    results, result = [], torch.full((8, 48), 7.0, device="cuda", dtype=torch.float16)
    hidden.new_empty = lambda *shape: result  # the tensor that the kernel would write to
    compile_ahead(lambda: results.append(launch_geglu(hidden)), torch.device("cuda"))
    assert (result == 7.0).all()
    del hidden.new_empty
    value, gate = hidden.double().chunk(2, dim=-1)
    expected = value * torch.nn.functional.gelu(gate)
    assert torch.allclose(launch_geglu(hidden).double(), expected, atol=2e-3) and len(results) == 1
