"""Measures loading a 2 GiB SD1.5 checkpoint: time and peak memory, ours and diffusers' from_single_file side by side.

Each run is a separate process. `load` is the time until the networks are ready, without imports; `use` adds
reading every weight once, because a memory-mapped weight is read from disk only then. Peak memory covers the
whole process until the end of `use`. Both programs sum all weights, to prove that they loaded the same numbers.

    python benchmarks/bench_load.py [--repeats 5] [--dtypes float16 float32] [--file-dtype float16]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.common import ROOT, peak_memory, write_result
from modules.loader.load_weights import empty_weights
from modules.models.clip import ClipTextModel
from modules.models.configs import CLIP_L, SD15_UNET, SD_VAE
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL

LOADERS = ("ours", "diffusers")
MEMORY_TARGET = 1.15  # peak memory over file size
TIME_TARGET = 0.5  # our time over diffusers'


def make_checkpoint(path: Path, dtype: torch.dtype) -> None:
    """Writes an SD1.5-layout file of random weights."""
    with empty_weights():
        networks = {
            "model.diffusion_model.": UNet(SD15_UNET),
            "first_stage_model.": AutoencoderKL(SD_VAE),
            "cond_stage_model.transformer.": ClipTextModel(CLIP_L),
        }
    tensors: dict[str, Tensor] = {}
    for prefix, network in networks.items():
        for name, empty in network.state_dict().items():
            tensors[prefix + name] = torch.empty(empty.shape, dtype=dtype).uniform_(-0.05, 0.05)
    save_file(tensors, path)


def make_configs(folder: Path) -> None:
    """Writes the config folder that from_single_file would otherwise download, from the classes' defaults."""
    from diffusers import AutoencoderKL as DiffusersVAE
    from diffusers import PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig

    with torch.device("meta"):
        UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).save_config(folder / "unet")
        levels = len(SD_VAE.channels)
        DiffusersVAE(
            block_out_channels=SD_VAE.channels,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            layers_per_block=SD_VAE.res_blocks,
        ).save_config(folder / "vae")
    CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12).save_pretrained(
        folder / "text_encoder"
    )
    PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_config(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": [None, None],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def load_ours(path: Path, _configs: Path, dtype: torch.dtype) -> tuple[list[nn.Module], float]:
    from modules.loader.checkpoint import load_checkpoint

    start = time.perf_counter()
    model = load_checkpoint(path, device="cpu", dtype=dtype)
    return [model.unet.module, model.text.module, model.vae], time.perf_counter() - start


def load_diffusers(path: Path, configs: Path, dtype: torch.dtype) -> tuple[list[nn.Module], float]:
    from diffusers import (  # noqa: F401  the classes are imported lazily, which must not count as loading
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel  # noqa: F401

    start = time.perf_counter()
    pipe = StableDiffusionPipeline.from_single_file(
        str(path),
        config=str(configs),
        torch_dtype=dtype,
        local_files_only=True,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return [pipe.unet, pipe.text_encoder, pipe.vae], time.perf_counter() - start


def run_once(loader: str, path: Path, configs: Path, dtype: torch.dtype) -> dict[str, float]:
    """Runs in the measured process: loads, reads every weight, reports."""
    start = time.perf_counter()
    networks, load_seconds = {"ours": load_ours, "diffusers": load_diffusers}[loader](path, configs, dtype)
    loaded_peak = peak_memory()
    use_start = time.perf_counter()
    total = sum(weight_sum(network.parameters()) for network in networks)
    return {
        "load_s": load_seconds,
        "use_s": load_seconds + time.perf_counter() - use_start,
        "process_s": time.perf_counter() - start,
        "loaded_peak_bytes": loaded_peak,
        "peak_bytes": peak_memory(),
        "sum": total,
        "parameters": sum(weight.numel() for network in networks for weight in network.parameters()),
    }


def weight_sum(weights: Iterable[Tensor]) -> float:
    """Sums in pieces: float64 copies of whole weights would count as the loader's memory."""
    with torch.no_grad():
        pieces = (piece for weight in weights for piece in weight.flatten().split(2**20))
        return sum(piece.sum(dtype=torch.float64).item() for piece in pieces)


def run_process(loader: str, path: Path, configs: Path, dtype: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--run", loader, str(path), str(configs), dtype]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"{loader} failed:\n{answer.stderr[-3000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def compare(path: Path, configs: Path, dtype: str, repeats: int) -> list[dict[str, object]]:
    """Alternates between the loaders, so that both see the same page cache and machine load."""
    runs: dict[str, list[dict[str, float]]] = {loader: [] for loader in LOADERS}
    for loader in LOADERS:
        run_process(loader, path, configs, dtype)  # warms the page cache and compiled bytecode
    for _ in range(repeats):
        for loader in LOADERS:
            runs[loader].append(run_process(loader, path, configs, dtype))
    size = path.stat().st_size
    sums = [run["sum"] for loader in LOADERS for run in runs[loader]]
    if max(sums) - min(sums) > 1e-6 * runs["ours"][0]["parameters"] ** 0.5:
        raise RuntimeError(f"the two programs loaded different weights: {sums}")
    return [_row(loader, dtype, runs[loader], size) for loader in LOADERS]


def _row(loader: str, dtype: str, runs: list[dict[str, float]], size: int) -> dict[str, object]:
    row: dict[str, object] = {"loader": loader, "dtype": dtype, "runs": len(runs), "file_bytes": size}
    for key in ("load_s", "use_s", "process_s"):
        seconds = [run[key] for run in runs]
        row[key] = round(statistics.median(seconds), 4)
        row[f"{key}_range"] = [round(min(seconds), 4), round(max(seconds), 4)]
    for key in ("loaded_peak_bytes", "peak_bytes"):
        row[key] = max(int(run[key]) for run in runs)
        row[f"{key.removesuffix('_bytes')}_over_file"] = round(max(run[key] for run in runs) / size, 3)
    row["parameters"] = runs[0]["parameters"]
    return row


def verdict(rows: list[dict[str, object]], file_dtype: str) -> dict[str, object]:
    """Checks both targets at the file's own dtype; a conversion would also need memory for the converted weights."""
    ours, theirs = (next(r for r in rows if r["loader"] == name and r["dtype"] == file_dtype) for name in LOADERS)
    load_ratio = float(str(ours["load_s"])) / float(str(theirs["load_s"]))
    use_ratio = float(str(ours["use_s"])) / float(str(theirs["use_s"]))
    peak = float(str(ours["peak_over_file"]))
    return {
        "load_time_over_diffusers": round(load_ratio, 3),
        "use_time_over_diffusers": round(use_ratio, 3),
        "peak_over_file": peak,
        "time_target_met": load_ratio <= TIME_TARGET,
        "memory_target_met": peak <= MEMORY_TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of loading a checkpoint, ours and diffusers'.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--file-dtype", default="float16")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "float32"])
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        loader, path, configs, dtype = arguments.run
        print(json.dumps(run_once(loader, Path(path), Path(configs), getattr(torch, dtype))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path, configs = Path(folder) / "sd15.safetensors", Path(folder) / "configs"
        make_checkpoint(path, getattr(torch, arguments.file_dtype))
        make_configs(configs)
        rows = [row for dtype in arguments.dtypes for row in compare(path, configs, dtype, arguments.repeats)]
    for row in rows:
        print(
            f"{row['loader']:>10} {row['dtype']:>8}: load {row['load_s']} s, with use {row['use_s']} s, "
            f"peak {row['peak_over_file']} x file"
        )
    extra = {"file_dtype": arguments.file_dtype}
    if arguments.file_dtype in arguments.dtypes:
        extra |= {"verdict": verdict(rows, arguments.file_dtype)}
    write_result("load", rows, **extra)


if __name__ == "__main__":
    main()
