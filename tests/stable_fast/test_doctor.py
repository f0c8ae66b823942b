"""The doctor's conclusions from made-up machines, and a real run here."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from modules.stable_fast import doctor
from modules.stable_fast.kernels.self_test import OpCheck

HEALTHY = doctor.Facts(
    system="Linux 6.8", python="3.12.3", torch="2.11.0+cu130", torch_cuda="13.0", gpu="NVIDIA H200",
    capability=(9, 0), memory_gib=139.0, driver_file=True, triton="3.6.0", cudnn=91900, cudnn_frontend="1.18.0",
    xformers=None, compiler="/usr/bin/gcc", wsl=False, forced_level="",
)  # fmt: skip
NO_GPU = replace(HEALTHY, gpu=None, capability=None, memory_gib=0.0, cudnn=None)


def working(facts):
    return [level.name for level in doctor.judge(facts) if level.works]


@pytest.mark.parametrize("error", ["RuntimeError", "OSError", "ImportError"])
def test_a_broken_triton_is_named_and_stops_nothing(error, tmp_path):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(f"raise {error}('no such symbol')\n")
    found = subprocess.run(
        [sys.executable, "-m", "modules.stable_fast.doctor"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"cannot be imported ({error}: no such symbol)" in found.stdout and "Traceback" not in found.stderr
    program = "import torch; from modules.stable_fast import compile_module as c\n"
    program += (
        "m, x = torch.nn.Linear(3, 2).eval(), torch.ones(1, 3); f = c(m, (x,)); print(f(x).shape, f.report.level)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "torch.Size([1, 2]) fused" in found.stdout, found.stderr


def test_a_healthy_machine_needs_no_advice():
    diagnosis = doctor.diagnose(self_test=False, facts=HEALTHY)
    assert working(HEALTHY) == ["off", "graph", "fused", "full"]
    assert diagnosis.advice == () and all(level.reason == "" for level in diagnosis.levels)


@pytest.mark.parametrize(
    "facts,remedy",
    [
        (replace(NO_GPU, torch_cuda=None), "install a CUDA build of torch"),
        (replace(NO_GPU, driver_file=False), "install the NVIDIA driver"),
        (replace(NO_GPU, driver_file=False, wsl=True), "in Windows"),
        (NO_GPU, "update the NVIDIA driver"),
    ],
)
def test_without_a_gpu_the_cause_and_remedy_are_named(facts, remedy):
    assert working(facts) == ["off", "fused"]
    assert any(remedy in advice for advice in doctor.advise(facts))
    assert all(remedy in level.reason for level in doctor.judge(facts) if level.name in ("graph", "full"))


@pytest.mark.parametrize(
    "change,remedy",
    [
        ({"triton": None}, "pip install triton"),
        ({"triton": None, "system": "Windows 11"}, "triton-windows"),
        ({"compiler": None}, "install gcc"),
        ({"cudnn_frontend": None}, "nvidia-cudnn-frontend"),
        ({"capability": (7, 0)}, "plain PyTorch on compute capability 7.0"),
        ({"capability": (7, 5)}, "use fp16"),
        ({"memory_gib": 4.0}, "prefer level fused"),
        ({"torch": "2.14.0.dev2026"}, "preview"),
    ],
)
def test_each_shortcoming_has_its_line(change, remedy):
    facts = replace(HEALTHY, **change)
    assert any(remedy in advice for advice in doctor.advise(facts))
    assert working(facts) == ["off", "graph", "fused", "full"]


def test_the_environment_variable_is_respected_and_named(monkeypatch):
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "off")
    facts = replace(HEALTHY, forced_level=doctor.gather().forced_level)
    assert working(facts) == ["off"]
    said = doctor.lines(doctor.Diagnosis(facts, doctor.judge(facts), ()))
    assert "Only level off works here" in said[-1]
    assert any("LIGHTDIFFUSION_STABLE_FAST=off" in line for line in said)


def test_a_wrong_kernel_is_shown_and_fails(monkeypatch):
    wrong = OpCheck("linear_geglu", "2x2", "triton_64x64x64", 0.5, 0.004)
    monkeypatch.setattr(doctor, "check_all", lambda device, dtype: [wrong])
    said = []
    assert doctor.main(said.append) == 1
    assert "WRONG: linear_geglu by triton_64x64x64" in said[0]


def test_a_kernel_that_breaks_the_gpu_is_named(monkeypatch):
    fault = OpCheck("conv2d_epilogue", "2x64x16x16", "cudnn_graph_3", 0.0, 0.004, fault="misaligned address")
    monkeypatch.setattr(doctor, "check_all", lambda device, dtype: [fault])
    said = []
    assert doctor.main(said.append) == 1
    assert "FAULT: conv2d_epilogue by cudnn_graph_3 at 2x64x16x16: misaligned address" in said[0]


@pytest.mark.parametrize("way", [["-m", "modules.stable_fast.doctor"], ["pipeline.py", "--doctor"]])
def test_it_runs_here_as_a_program(project_root, way):
    command = [sys.executable, *way]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Levels of Stable-Fast" in done.stdout and "WRONG" not in done.stdout
