"""The doctor's conclusions about made-up machines, and a real run on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from modules.stable_fast.doctor import diagnose, environment
from modules.stable_fast.doctor.self_test import OpCheck

HEALTHY = environment.Facts(
    system="Linux 6.8", python="3.12.3", torch="2.11.0+cu130", torch_cuda="13.0", gpu="NVIDIA H200",
    capability=(9, 0), memory_gib=139.0, driver="580.95.05", triton="3.6.0", cudnn=91900, cudnn_frontend="1.18.0",
    xformers=None, compiler="/usr/bin/gcc", wsl=False, forced_level="",
    cache="/home/me/.cache/lightdiffusion", cache_mib=1.5,
)  # fmt: skip
CHECKS = [OpCheck("linear_geglu", "2x2", "chosen", float("inf"), 0.004)]
NO_GPU = replace(HEALTHY, gpu=None, capability=None, memory_gib=0.0, cudnn=None)


@pytest.mark.parametrize("full", [True, False])
def test_a_driver_that_goes_on_in_system_memory_is_told(full, monkeypatch):
    def allocate(size, **_):
        assert size > 1 << 30
        if full:
            raise torch.OutOfMemoryError("out of memory")

    cuda = SimpleNamespace(mem_get_info=lambda: (1 << 30, 2 << 30), empty_cache=lambda: None)
    fake = SimpleNamespace(cuda=cuda, empty=allocate, uint8=torch.uint8, OutOfMemoryError=torch.OutOfMemoryError)
    monkeypatch.setattr(environment, "torch", fake)
    assert environment.spills_to_system_memory() is not full
    told = [line for line in diagnose.advise(replace(HEALTHY, spills=not full)) if "Sysmem Fallback" in line]
    assert len(told) == (not full)


def working(facts):
    return [level.name for level in diagnose.judge(facts) if level.works]


@pytest.mark.parametrize("error", ["RuntimeError", "OSError", "ImportError"])
def test_a_broken_triton_is_named_and_stops_nothing(error, tmp_path):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(f"raise {error}('no such symbol')\n")
    program = """
import torch
from modules.stable_fast import compile_module
from modules.stable_fast.doctor import diagnose
diagnose.main([])
x = torch.ones(1, 3)
compiled = compile_module(torch.nn.Linear(3, 2).eval(), (x,))
print(compiled(x).shape, compiled.report.level)
"""
    command, variables = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(tmp_path)}
    found = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert f"cannot be imported ({error}: no such symbol)" in found.stdout and "Traceback" not in found.stderr
    assert "torch.Size([1, 2]) fused" in found.stdout, found.stderr


def test_a_healthy_machine_needs_no_advice():
    diagnosis = diagnose.diagnose(self_test=False, facts=HEALTHY)
    assert working(HEALTHY) == ["off", "graph", "fused", "full"]
    assert diagnosis.advice == () and all(level.reason == "" for level in diagnosis.levels)


@pytest.mark.parametrize(
    "facts,remedy",
    [
        (
            replace(NO_GPU, torch_cuda=None),
            "580.95.05 found, but PyTorch is a CPU build: install a CUDA build",
        ),
        (replace(NO_GPU, torch_cuda=None, driver=None), "no NVIDIA driver found, and PyTorch is a CPU build"),
        (replace(NO_GPU, torch_cuda=None, driver=None), "install the NVIDIA driver, then a CUDA build of torch"),
        (replace(NO_GPU, driver=None), "install the NVIDIA driver"),
        (replace(NO_GPU, driver=None, wsl=True), "in Windows"),
        (replace(NO_GPU, driver_problem="Driver/library version mismatch"), "(Driver/library version mismatch)"),
        (replace(NO_GPU, driver_problem="nvidia-smi is missing"), "docker run --gpus all"),
        (replace(NO_GPU, hidden_gpus=True), "CUDA_VISIBLE_DEVICES"),
        (replace(NO_GPU, system="Darwin 24.1", driver=None, torch_cuda=None), "macOS has no CUDA"),
        (NO_GPU, "update the NVIDIA driver"),
    ],
)
def test_without_a_gpu_the_cause_and_remedy_are_named(facts, remedy):
    assert working(facts) == ["off", "fused"]
    assert any(remedy in advice for advice in diagnose.advise(facts))
    assert all(remedy in level.reason for level in diagnose.judge(facts) if level.name in ("graph", "full"))


@pytest.mark.parametrize(
    ("driver", "build"), [("580.95.05", "cu130"), ("566.36", "cu126"), ("1000.1", "cu130"), (None, "cu130")]
)
def test_a_cuda_build_is_advised_that_the_driver_runs(driver, build):
    advice = diagnose.advise(replace(NO_GPU, torch_cuda=None, driver=driver))
    assert sum(f"https://download.pytorch.org/whl/{build} " in line for line in advice) == 1


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
        ({"cache_problem": "Permission denied"}, "(Permission denied), so each start compiles anew"),
        ({"cache_problem": "Permission denied"}, "LIGHTDIFFUSION_CACHE"),
    ],
)
def test_each_shortcoming_has_its_line(change, remedy):
    facts = replace(HEALTHY, **change)
    assert any(remedy in advice for advice in diagnose.advise(facts))
    assert working(facts) == ["off", "graph", "fused", "full"]


def row(name, facts):
    (found,) = [line for line in diagnose.lines(diagnose.Diagnosis(facts, (), ())) if line.startswith(name)]
    return found.removeprefix(name).strip()


def test_rows_of_the_driver_and_the_cache():
    assert row("NVIDIA driver", HEALTHY) == "580.95.05"
    assert row("NVIDIA driver", replace(NO_GPU, driver=None)) == "not found"
    assert row("NVIDIA driver", replace(NO_GPU, driver=None, driver_problem="does not run")) == "does not run"
    assert row("cache", HEALTHY) == "/home/me/.cache/lightdiffusion, can be written, 1.5 MiB"
    assert "cannot be written (Read-only file system)" in row(
        "cache", replace(HEALTHY, cache_problem="Read-only file system")
    )


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for nvidia-smi")
@pytest.mark.parametrize(
    ("script", "kernel_module", "expected"),
    [
        ("echo 580.95.05; echo 580.95.05", "", ("580.95.05", "")),
        ("echo Failed to initialize NVML; exit 18", "", (None, "Failed to initialize NVML")),
        ("exit 1", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue", ("550.54.15", "nvidia-smi fails")),
        (None, "NVRM version: NVIDIA UNIX Open Kernel Module  570.1  Tue", ("570.1", "nvidia-smi is missing")),
        (None, "", (None, "")),
    ],
)
def test_the_driver_is_found_by_its_program_and_its_kernel_module(
    script, kernel_module, expected, tmp_path, monkeypatch
):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    if kernel_module:
        (tmp_path / "version").write_text(kernel_module)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.find_driver(tmp_path / "version") == expected


def test_the_cache_folder_is_measured_and_tried(tmp_path, monkeypatch):
    (tmp_path / "graphs").mkdir()
    (tmp_path / "graphs" / "a.json").write_bytes(bytes(3 << 20))
    monkeypatch.setenv("LIGHTDIFFUSION_CACHE", str(tmp_path))
    facts = environment.gather()
    assert (facts.cache, facts.cache_mib, facts.cache_problem) == (str(tmp_path), 3.0, "")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTDIFFUSION_CACHE", str(tmp_path / "file"))
    assert environment.gather().cache_problem


def test_json_is_json_also_where_an_error_is_not_finite(monkeypatch):
    monkeypatch.setattr(diagnose, "check_all", lambda device, dtype: CHECKS)
    said = []
    assert diagnose.main(["--json"], said.append) == 1
    found = json.loads("".join(said), parse_constant=pytest.fail)
    assert found["checks"][0]["error"] is None and found["checks"][0]["passed"] is False and found["exit_code"] == 1
    assert found["facts"]["torch"] and [level["name"] for level in found["levels"]] == ["off", "graph", "fused", "full"]


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("-h", 0), ("--jsn", 2), ("prompt", 2)])
def test_help_and_mistakes_test_nothing(argument, code, monkeypatch, capsys):
    monkeypatch.setattr(diagnose, "diagnose", lambda: pytest.fail("the test ran"))
    said = []
    assert diagnose.main([argument], said.append) == code
    told = capsys.readouterr().err + "".join(said)
    assert ("usage:" in told) if code == 0 else (argument in told and told.count("\n") == 1)


def test_the_environment_variable_is_respected_and_named(monkeypatch):
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "off")
    facts = replace(HEALTHY, forced_level=environment.gather().forced_level)
    assert working(facts) == ["off"]
    said = diagnose.lines(diagnose.Diagnosis(facts, diagnose.judge(facts), ()))
    assert "Only level off works here" in said[-1]
    assert any("LIGHTDIFFUSION_STABLE_FAST=off" in line for line in said)


def test_an_unknown_word_in_the_variable_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "nonsense")
    assert diagnose.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: LIGHTDIFFUSION_STABLE_FAST=nonsense is unknown") and error.count("\n") == 1


@pytest.mark.parametrize(("arguments", "word"), [(["--json"], "nonsense"), (["--json", "--jsn"], "--jsn")])
def test_with_json_a_refusal_is_json_too(arguments, word, monkeypatch, capsys):
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "nonsense")
    said = []
    assert diagnose.main(arguments, said.append) == 2
    answer = json.loads("".join(said))
    assert answer.keys() == {"error", "exit_code"} and answer["exit_code"] == 2 and word in answer["error"]
    assert capsys.readouterr().err == f"error: {answer['error']}\n"


def test_a_wrong_kernel_is_shown_and_fails(monkeypatch):
    wrong = OpCheck("linear_geglu", "2x2", "triton_64x64x64", 0.5, 0.004)
    monkeypatch.setattr(diagnose, "check_all", lambda device, dtype: [wrong])
    said = []
    assert diagnose.main([], said.append) == 1
    assert "WRONG: linear_geglu by triton_64x64x64" in said[0]


def test_a_kernel_that_breaks_the_gpu_is_named(monkeypatch):
    fault = OpCheck("conv2d_epilogue", "2x64x16x16", "cudnn_graph_3", 0.0, 0.004, fault="misaligned address")
    monkeypatch.setattr(diagnose, "check_all", lambda device, dtype: [fault])
    said = []
    assert diagnose.main([], said.append) == 1
    assert "FAULT: conv2d_epilogue by cudnn_graph_3 at 2x64x16x16: misaligned address" in said[0]


@pytest.mark.parametrize(
    ("way", "form"), [(["-m", "modules.stable_fast.doctor"], ["--json"]), (["pipeline.py", "--doctor"], [])]
)
def test_it_runs_here_as_a_program(project_root, way, form):
    command = [sys.executable, *way, *form]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if form:
        assert json.loads(done.stdout)["exit_code"] == 0
    else:
        assert "Levels of Stable-Fast" in done.stdout and "WRONG" not in done.stdout
