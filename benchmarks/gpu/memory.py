"""Measures the peak GPU memory of whole pictures within a limit, such as SDXL with a LoRA on a card of 8 GB.

    python -m benchmarks.gpu.memory                                # SDXL, 1024 px, 7.0 GiB, --memory auto, level full
    python -m benchmarks.gpu.memory --memory low --level off --limit 6.0
    python -m benchmarks.gpu.memory --memory low --precision fp8-weights --limit 5.2
    python -m benchmarks.gpu.memory --family sd15 --size 512 --memory low --precision fp8-weights --limit 2.2
    python -m benchmarks.gpu.memory --overflow                     # a VAE that overflows in float16
    python -m benchmarks.gpu.memory --tiny --device cpu --family sd15   # to try the script

Weights are random at the real shapes. The limit is that of `torch.cuda.set_per_process_memory_fraction`. Reserved
memory includes captured graphs, and is what the limit bounds. The pictures: with a LoRA; the same prompt again; another
prompt; without the LoRA.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.common import synchronise, write_result
from modules.core.device import free_memory
from modules.core.errors import LightDiffusionError
from modules.core.paths import KINDS, ModelFolders
from modules.generation.option_table import STABLE_FAST_PRECISIONS
from modules.generation.options import MEMORY_MODES, GenerationOptions, LoraChoice
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.models.clip import build_text_model
from modules.models.configs import (
    CLIP_L,
    SD15_UNET,
    SD_VAE,
    SDXL_CLIP_G,
    SDXL_CLIP_L,
    SDXL_UNET,
    SDXL_VAE,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL

MIB, GIB = 2**20, 2**30
Family = tuple[UNetConfig, VAEConfig, dict[str, TextConfig]]  # text encoders by the prefix of their names in the file
FAMILIES: dict[str, Family] = {
    "sd15": (SD15_UNET, SD_VAE, {"cond_stage_model.transformer.": CLIP_L}),
    "sdxl": (
        SDXL_UNET,
        SDXL_VAE,
        {"conditioner.embedders.0.transformer.": SDXL_CLIP_L, "conditioner.embedders.1.model.": SDXL_CLIP_G},
    ),
}
LORA = LoraChoice(name="random", strength=0.5)


def shrunk(family: Family) -> Family:
    """The family at small widths and depths, but with the shapes by which it is recognised."""
    unet, vae, texts = family
    small = replace(
        unet,
        channels=(64, 128, 128, 128)[: len(unet.channels)],
        depths=tuple(min(depth, 1) for depth in unet.depths),
        middle_depth=1,
        heads=unet.heads and 2,
        groups=16,
    )
    few = {prefix: replace(text, layers=3, mlp_width=64) for prefix, text in texts.items()}
    return small, replace(vae, channels=(16, 32, 32, 32), groups=4), few


def weights(prefix: str, network: nn.Module, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Yields random float16 weights that keep the activations near their size, made on `device`."""
    for name, empty in network.state_dict().items():
        noise = torch.randn(empty.shape, device=device)
        if empty.ndim >= 2:
            noise /= empty[0].numel() ** 0.5
        else:
            noise = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
        yield prefix + name, noise.half().cpu()


def write_project(root: Path, family: Family, device: torch.device, *, rank: int, overflows: bool) -> ModelFolders:
    """Writes a checkpoint, and a LoRA of this rank for every attention layer of its UNet."""
    for kind in KINDS:
        (root / "models" / kind).mkdir(parents=True)
    unet_config, vae_config, texts = family
    with torch.device("meta"):
        unet, vae = UNet(unet_config), AutoencoderKL(vae_config)
        encoders = {prefix: build_text_model(config) for prefix, config in texts.items()}
    parts = {"model.diffusion_model.": unet, "first_stage_model.": vae, **encoders}
    tensors = dict(pair for prefix, network in parts.items() for pair in weights(prefix, network, device))
    if overflows:
        tensors["first_stage_model.decoder.conv_in.weight"] *= 3e4
    save_file(tensors, root / "models" / "checkpoints" / "random.safetensors")
    save_file(dict(lora(unet, rank)), root / "models" / "loras" / "random.safetensors")
    return ModelFolders(root)


def lora(unet: nn.Module, rank: int) -> Iterator[tuple[str, Tensor]]:
    for name, weight in unet.named_parameters():
        if ".attn" in name and weight.ndim == 2:
            layer = name.removesuffix(".weight")
            yield f"{layer}.lora_up.weight", (torch.randn(weight.shape[0], rank) / rank).half()
            yield f"{layer}.lora_down.weight", (torch.randn(rank, weight.shape[1]) / weight.shape[1] ** 0.5).half()
            yield f"{layer}.alpha", torch.tensor(float(rank))


def set_limit(device: torch.device, gib: float) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(gib * GIB / torch.cuda.mem_get_info()[1])


def peaks(device: torch.device) -> dict[str, object]:
    """Returns the peaks since the last call, and what the graphs and everything else hold now."""
    if device.type != "cuda":
        return {}
    found: dict[str, object] = {
        "peak_allocated_mib": torch.cuda.max_memory_allocated() / MIB,
        "peak_reserved_mib": torch.cuda.max_memory_reserved() / MIB,
        "held_mib": torch.cuda.memory_allocated() / MIB,
        "free_mib": free_memory(device) / MIB,
    }
    torch.cuda.reset_peak_memory_stats()
    return found


def picture(label: str, session: Session, told: list[str], **changes: Any) -> dict[str, object]:
    """Makes one picture and measures it. An error is part of the row."""
    del told[:]
    row: dict[str, object] = {"label": label}
    started = time.perf_counter()
    try:
        list(generate(GenerationOptions(**changes), session))
        synchronise()
        row["seconds"] = time.perf_counter() - started
    except LightDiffusionError as error:
        row["error"] = str(error)
    row |= peaks(session.device)
    report = session.stable_fast_report
    if report is not None:
        row |= {"status": report.status_line(), "graph_mib": report.graph_mib, "weights_mib": report.weights_mib}
        row["captures"] = report.counters.captures
    return row | {"told": list(told)}


class Told(logging.Handler):
    """Collects warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def measure(folders: ModelFolders, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    told = Told()
    logging.getLogger().addHandler(told)
    session = Session(folders, device=arguments.device, memory=arguments.memory)
    request: dict[str, Any] = {
        "prompt": "a lighthouse on a cliff", "width": arguments.size, "height": arguments.size, "seed": 1,
        "steps": arguments.steps, "sampler": "euler", "stable_fast": arguments.level,
        "stable_fast_precision": arguments.precision,
    }  # fmt: skip
    yield picture("with a LoRA", session, told.lines, **request, loras=(LORA,))
    model = session.model(GenerationOptions(**request))
    yield picture("the same prompt", session, told.lines, **request | {"seed": 2}, loras=(LORA,)) | {
        "away": list(model.away),
        "vae": str(next(model.vae.parameters()).dtype),
    }
    yield picture("another prompt", session, told.lines, **request | {"prompt": "a red house"}, loras=(LORA,))
    yield picture("without the LoRA", session, told.lines, **request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=tuple(FAMILIES), default="sdxl")
    parser.add_argument("--memory", choices=MEMORY_MODES, default="auto")
    parser.add_argument("--limit", type=float, default=7.0, help="GiB")
    parser.add_argument("--size", type=int, default=1024, help="pixels along one side")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--level", choices=("off", "graph", "fused", "full"), default="full")
    parser.add_argument("--precision", choices=STABLE_FAST_PRECISIONS, default="off")
    parser.add_argument("--rank", type=int, default=32, help="of the LoRA")
    parser.add_argument("--overflow", action="store_true", help="the VAE overflows in float16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    family = shrunk(FAMILIES[arguments.family]) if arguments.tiny else FAMILIES[arguments.family]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        folders = write_project(Path(folder), family, device, rank=arguments.rank, overflows=arguments.overflow)
        set_limit(device, arguments.limit)
        rows = []
        for row in measure(folders, arguments):
            rows.append(row)
            print(row, flush=True)
    name = f"memory-{arguments.family}-{arguments.size}-{arguments.memory}-{arguments.level}"
    if arguments.precision != "off":
        name += f"-{arguments.precision}"
    write_result(name, rows, arguments=vars(arguments))


if __name__ == "__main__":
    main()
