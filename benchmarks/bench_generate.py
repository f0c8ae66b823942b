"""Times a whole picture, from prompt to array: ours at each level, diffusers' pipeline eager and compiled, in turn.

    python -m benchmarks.bench_generate                           # SD1.5 at 512, 20 steps Euler, every subject
    python -m benchmarks.bench_generate --device cpu --tiny --subjects off,full,diffusers --rounds 1

Weights are random at the real shapes (with `--tiny`, at small shapes, to try the script). diffusers gets different
weights, since only time is compared here. The first picture includes all compilation. Then every subject makes one
picture per round, and the median is reported.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.bench_unet import compiled
from benchmarks.common import synchronise, write_result
from benchmarks.side_by_side import at_its_best
from modules.core.paths import KINDS, ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.models.clip import build_text_model
from modules.models.configs import SD15_UNET, TextConfig, VAEConfig
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL

MakePicture = Callable[[int], np.ndarray]
LEVELS = ("off", "graph", "fused", "full")
MODES = {
    "diffusers": None,
    "diffusers-regional": "regional",
    "diffusers-compile": "default",
    "diffusers-reduce-overhead": "reduce-overhead",
    "diffusers-max-autotune": "max-autotune",
}
SUBJECTS = (*LEVELS, *MODES)


def checkpoint(folder: Path, *, tiny: bool) -> Path:
    """Writes a checkpoint file with random weights for our program."""
    if tiny:
        from tests import tiny as networks

        return networks.save_checkpoint(folder / "random.safetensors")
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # which draws its numbers sooner
        parts = {
            "model.diffusion_model.": UNet(SD15_UNET),
            "first_stage_model.": AutoencoderKL(VAEConfig()),
            "cond_stage_model.transformer.": build_text_model(TextConfig()),
        }
    weights = [(p + name, t) for p, part in parts.items() for name, t in part.state_dict().items()]
    save_file({name: t.half().cpu().contiguous() for name, t in weights}, folder / "random.safetensors")
    return folder / "random.safetensors"


def project(root: Path, *, tiny: bool) -> ModelFolders:
    for kind in KINDS:
        (root / "models" / kind).mkdir(parents=True)
    checkpoint(root / "models" / "checkpoints", tiny=tiny)
    return ModelFolders(root)


def ours(folders: ModelFolders, level: str, arguments: argparse.Namespace) -> MakePicture:
    session = Session(folders, device=arguments.device)

    def make(seed: int) -> np.ndarray:
        options = GenerationOptions(
            prompt="a lighthouse on a cliff", width=arguments.size, height=arguments.size, steps=arguments.steps,
            seed=seed, cfg=7.0, sampler="euler", scheduler="normal", stable_fast=level,
        )  # fmt: skip
        return np.asarray(next(iter(generate(options, session))).image)

    return make


def diffusers_pipeline(arguments: argparse.Namespace) -> Any:
    """Builds diffusers' pipeline of the same shapes with random weights, without a tokenizer or safety checker."""
    from diffusers import AutoencoderKL as DiffusersVAE
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tiny, device = arguments.tiny, torch.device(arguments.device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    small = {"block_out_channels": (64, 64, 128, 128), "norm_num_groups": 16} if tiny else {}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    widths, groups = ((16, 32, 32, 32), 4) if tiny else ((128, 256, 512, 512), 32)
    text: dict[str, Any] = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    if tiny:
        text = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 1, "intermediate_size": 128}
    with torch.device(device):
        width = text["hidden_size"]
        unet = UNet2DConditionModel(cross_attention_dim=width, attention_head_dim=2 if tiny else 8, **small)
        vae = DiffusersVAE(block_out_channels=widths, norm_num_groups=groups, layers_per_block=2, **blocks)
        encoder = CLIPTextModel(CLIPTextConfig(**text))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    pipe: Any = StableDiffusionPipeline(
        vae=vae.to(dtype), text_encoder=encoder.to(dtype), tokenizer=None, unet=unet.to(dtype), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def diffusers(mode: str | None, arguments: argparse.Namespace) -> MakePicture:
    """Makes the call; `mode` is torch.compile's for UNet and VAE decoder, or "regional" for the repeated UNet blocks.

    Prompts go through our tokenizer, which costs the same.
    """
    from modules.text.tokenizer import BOS, EOS, Tokenizer

    pipe, tokenizer = diffusers_pipeline(arguments), Tokenizer()
    if mode == "regional":
        pipe.unet.fuse_qkv_projections()
        pipe.unet.compile_repeated_blocks(fullgraph=True)
    elif mode is not None:
        pipe.unet = compiled(pipe.unet.to(memory_format=torch.channels_last), mode)
        pipe.vae.to(memory_format=torch.channels_last)
        pipe.vae.decode = compiled(pipe.vae.decode, mode)

    def embed(prompt: str) -> torch.Tensor:
        ids = [BOS, *tokenizer.encode(prompt), EOS]
        padded = torch.tensor([ids + [EOS] * (77 - len(ids))], device=arguments.device)
        return pipe.text_encoder(padded).last_hidden_state

    def make(seed: int) -> np.ndarray:
        with torch.inference_mode():
            pictures = pipe(
                prompt_embeds=embed("a lighthouse on a cliff"), negative_prompt_embeds=embed(""),
                width=arguments.size, height=arguments.size, num_inference_steps=arguments.steps, guidance_scale=7.0,
                generator=torch.Generator().manual_seed(seed), output_type="pil",
            )  # fmt: skip
        return np.asarray(pictures.images[0])

    return make


def maker(name: str, folders: ModelFolders, arguments: argparse.Namespace) -> MakePicture:
    if name in LEVELS:
        return ours(folders, name, arguments)
    return diffusers(MODES[name], arguments)


def warmed_up(name: str, folders: ModelFolders, arguments: argparse.Namespace) -> tuple[MakePicture | None, dict]:
    row: dict[str, object] = {"label": name}
    began = time.perf_counter()
    try:
        with at_its_best(name):
            make = maker(name, folders, arguments)
            began = time.perf_counter()
            make(0)
            synchronise()
    except torch.AcceleratorError:
        raise  # after a GPU fault no other subject can run, and no other subject caused the fault
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - recorded as a result; the other subjects still run
        row["error"] = f"{type(error).__name__} after {time.perf_counter() - began:.0f} s: {error}"[:500]
        print(f"{name}: {row['error']}", flush=True)
        return None, row
    row["first_picture_seconds"] = time.perf_counter() - began
    print(f"{name}: first picture {row['first_picture_seconds']:.2f} s", flush=True)
    return make, row


def run(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for background jobs
    deadline = time.monotonic() + arguments.budget
    with tempfile.TemporaryDirectory() as folder:
        folders = project(Path(folder), tiny=arguments.tiny)
        rows: dict[str, dict[str, object]] = {}
        makers: dict[str, MakePicture] = {}
        for name in arguments.subjects.split(","):
            if time.monotonic() > deadline:
                rows[name] = {"label": name, "error": "not run: the time budget was spent"}
                continue
            make, rows[name] = warmed_up(name, folders, arguments)
            if make is not None:
                makers[name] = make
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for round_ in range(arguments.rounds):
            for name, make in makers.items():
                with at_its_best(name):
                    began = time.perf_counter()
                    make(round_ + 1)
                    synchronise()
                seconds[name].append(time.perf_counter() - began)
    for name, times in seconds.items():
        rows[name] |= {"ms": statistics.median(times) * 1000, "fastest_ms": min(times) * 1000}
        print(f"{name:28} {statistics.median(times) * 1000:10.1f} ms")
    shape = "tiny" if arguments.tiny else "sd15"
    write_result(f"generate-{shape}-{arguments.size}", list(rows.values()), arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--subjects", default=",".join(SUBJECTS))
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds after which no subject is prepared")
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the script")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
