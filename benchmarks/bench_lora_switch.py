"""Measures LoRA switches: reading the file, on, another strength, another LoRA, off; eager and with Stable-Fast.

    python -m benchmarks.bench_lora_switch                          # SD1.5 at 512, every attention layer at rank 32
    python -m benchmarks.bench_lora_switch --model sdxl --size 1024
    python -m benchmarks.bench_lora_switch --device cpu --tiny --size 64

A switch is one call of ModelPatcher.apply(), including, with Stable-Fast, the refresh of the prepared weights.
The step after the switch is timed separately. After the last switch off, weights and output must be bit-identical to
the initial ones.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.bench_unet import MODELS, config_of
from benchmarks.common import measure, summarise, synchronise, timing_row, write_result
from benchmarks.networks.diffusers_unet import random_text
from modules.core.runner import Conditioning
from modules.generation.eager_runner import EagerRunner
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.patcher import ModelPatcher
from modules.lora.apply import LoraPatches, add_lora, lora_patches
from modules.models.configs import CLIP_L, SD_VAE
from modules.models.unet import UNet
from modules.stable_fast import StableFastConfig, StableFastPatcher

TIMESTEPS = [float(999 - 50 * step) for step in range(20)]
SWITCHES = ("on", "strength", "other", "off")
SUBJECTS = ("off", "graph", "fused", "full")
FAMILIES = {"sd15": "SD1.x", "sd21": "SD2.x", "sdxl": "SDXL"}
Runner = Any  # eager or Stable-Fast, both with prepare() and step()


class Bench:
    """Holds one network, two LoRAs for it, and the inputs of a step."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device(arguments.device)
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        torch.manual_seed(0)
        self.model = arguments.model
        self.config = config_of(arguments.model, tiny=arguments.tiny)
        with torch.device(self.device):
            network = UNet(self.config).to(dtype).eval().requires_grad_(False)
        self.unet = ModelPatcher(network, self.device)
        self.text = ModelPatcher(nn.Module(), self.device)
        side = arguments.size // 8
        self.x = torch.randn(1, 4, side, side, device=self.device)
        self.text_inputs = random_text(self.config, 2, self.device, dtype)
        self.rounds = arguments.rounds
        self.rows: list[dict[str, object]] = []
        with tempfile.TemporaryDirectory() as folder:
            files = [self._write_lora(Path(folder) / f"{name}.safetensors", arguments.rank) for name in "ab"]
            self.rows.append(timing_row("read the file", measure(lambda: self._read(files[0]), warmup=1, repeats=3)))
            self.loras = [self._read(file) for file in files]

    def _write_lora(self, path: Path, rank: int) -> Path:
        """Writes up and down matrices for the transformers' linear layers and 1x1 projections, like kohya's trainer."""
        tensors: dict[str, Tensor] = {}
        for name, weight in self.unet.module.named_parameters():
            rows, columns = weight.shape[0], weight[0].numel()
            if weight.ndim >= 2 and columns == weight.shape[1] and (".transformer_blocks." in name or ".proj_" in name):
                layer = name.removesuffix(".weight")
                tensors[f"{layer}.lora_up.weight"] = (torch.randn(rows, rank) / rank).half()
                tensors[f"{layer}.lora_down.weight"] = (torch.randn(rank, columns) / columns**0.5).half()
                tensors[f"{layer}.alpha"] = torch.tensor(float(rank))
        save_file(tensors, path)
        return path

    def _read(self, path: Path) -> LoraPatches:
        spec = ModelSpec(
            unet=self.config,
            vae=SD_VAE,
            texts=(CLIP_L,),
            family=FAMILIES[self.model],
            prediction="epsilon",
            zero_terminal_snr=False,
            native_size=512,
            inpaint=False,
        )
        return lora_patches(path, self.unet, self.text, spec)

    def wanted(self, switch: str) -> ModelPatcher:
        """Makes a clone that requests the state to be reached by this switch."""
        clone = self.unet.clone()
        if switch != "off":
            lora = self.loras[1 if switch == "other" else 0]
            add_lora(lora, clone, self.text, strength=0.5 if switch == "strength" else 1.0, text_strength=0.0)
        return clone

    def step(self, runner: Runner) -> Tensor:
        runner.prepare(Conditioning(texts=(self.text_inputs,)), TIMESTEPS)
        return runner.step(self.x, TIMESTEPS[9])

    @torch.inference_mode()
    def run(self, level: str) -> None:
        """Times the switches in rounds at one level."""
        network, fast = self.unet.module, StableFastPatcher(StableFastConfig(level=level, timed_against_eager=False))
        fast.apply(self.unet)
        runner: Runner = fast.runner or EagerRunner(network)
        self.step(runner)
        first, weights = self.step(runner), {name: weight.clone() for name, weight in network.named_parameters()}
        counters = copy.copy(runner.report.counters) if fast.runner else None
        switches: dict[str, list[float]] = {name: [] for name in SWITCHES}
        steps: dict[str, list[float]] = {name: [] for name in SWITCHES}
        outputs: dict[str, Tensor] = {}
        for _ in range(self.rounds + 1):
            for name in SWITCHES:
                switches[name].append(seconds(self.wanted(name).apply))
                steps[name].append(seconds(lambda: outputs.update({name: self.step(runner)})))  # noqa: B023
        facts = {"bits_are_back": torch.equal(outputs["off"], first) and same(network, weights)}
        facts["changes_the_output"] = not torch.allclose(outputs["on"], first)
        if counters is not None and fast.runner is not None:
            now = fast.runner.report.counters
            facts |= {"retraces": now.traces - counters.traces, "recaptures": now.captures - counters.captures}
            facts |= {"level": fast.runner.report.level, "reason": fast.runner.report.reason}
        for name in SWITCHES:
            first_ms, step_ms = switches[name][0] * 1000, summarise(steps[name][1:]).median * 1000
            row = timing_row(
                f"{level} {name}", summarise(switches[name][1:]), first_ms=first_ms, next_step_ms=step_ms, **facts
            )
            self.rows.append(row)
        fast.release()


def seconds(function: Any) -> float:
    synchronise()
    began = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - began


def same(network: nn.Module, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(weight, weights[name]) for name, weight in network.named_parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", choices=tuple(MODELS), default="sd15")
    parser.add_argument("--size", type=int, default=512, help="pixels along one side")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the first, which has its own row")
    parser.add_argument("--subjects", default="off,full", help=f"of {', '.join(SUBJECTS)}; off is eager")
    parser.add_argument("--tiny", action="store_true", help="a small network, to try the script")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    for level in arguments.subjects.split(","):
        bench.run(level)
    for row in bench.rows:
        print(f"{row['label']!s:16} {float(str(row['median'])) * 1000:9.2f} ms  {row.get('first_ms', '')}")
    model = f"{arguments.model}-tiny" if arguments.tiny else arguments.model
    name = f"lora-switch-{model}-{arguments.size}-rank{arguments.rank}"
    write_result(name, bench.rows, arguments=vars(arguments))


if __name__ == "__main__":
    main()
