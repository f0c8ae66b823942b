"""Times a process from launch to the output of `--help`, and to the demo model's first step (ours, diffusers).

    python -m benchmarks.bench_start [--runs 5]

Every run is a separate process; ours and diffusers' alternate. diffusers reads the same weights from a folder in its
own layout. Writing that folder is not timed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import summarise, timing_row, write_result

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "models" / "checkpoints" / "demo.safetensors"
PROMPT = "a red circle on a blue background"

OURS = """
import sys, time
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.generation.text_to_image import generate
def first_step(event):
    print(time.time(), flush=True)
    sys.exit()
options = GenerationOptions(prompt=sys.argv[1], checkpoint=sys.argv[2], seed=7)
next(generate(options, Session(device="cpu"), on_progress=first_step))
"""

DIFFUSERS = """
import sys, time, torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
def first_step(pipe, step, timestep, kwargs):
    print(time.time(), flush=True)
    sys.exit()
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[2], local_files_only=True)
pipe.set_progress_bar_config(disable=True)
pipe(sys.argv[1], height=128, width=128, num_inference_steps=20, generator=torch.Generator().manual_seed(7),
     callback_on_step_end=first_step)
"""


def write_diffusers_folder(checkpoint: Path, folder: Path) -> None:
    """Writes the demo checkpoint in diffusers' layout, converted by diffusers' own functions."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from diffusers.loaders import single_file_utils as convert
    from transformers import CLIPTokenizer

    from modules.loader.checkpoint import load_checkpoint
    from modules.loader.files.state_dict import read_state_dict
    from tests.models.oracles import diffusers_unet, diffusers_vae, transformers_text

    spec = load_checkpoint(checkpoint, device="cpu", dtype=torch.float32).spec
    state = {name: tensor.float() for name, tensor in read_state_dict(checkpoint).items()}
    unet, vae, text = diffusers_unet(spec.unet), diffusers_vae(spec.vae), transformers_text(spec.texts[0])
    unet.load_state_dict(convert.convert_ldm_unet_checkpoint(dict(state), unet.config))
    vae.load_state_dict(convert.convert_ldm_vae_checkpoint(dict(state), vae.config))
    prefix = "cond_stage_model.transformer."
    names = set(text.state_dict())
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    text.load_state_dict(
        {(n if n in names else n.removeprefix("text_model.")): t for n, t in own.items() if "position_ids" not in n}
    )
    schedule = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", use_karras_sigmas=True
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer(*tokenizer_files(folder), model_max_length=77),
        unet=unet,
        scheduler=schedule,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def tokenizer_files(folder: Path) -> tuple[str, str]:
    """Writes vocab.json and merges.txt from the project's merges."""
    from modules.text import tokenizer

    data = Path(tokenizer.__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(data, "rt", encoding="utf-8").read().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [n for n in range(256) if n not in letters]
    alphabet = [chr(n) for n in letters] + [chr(256 + n) for n in range(len(others))]
    vocabulary = alphabet + [c + "</w>" for c in alphabet] + ["".join(m.split()) for m in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}), encoding="utf-8")
    merges_file.write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    return str(vocab), str(merges_file)


def seconds_to_first_step(code: str, model: Path | str) -> float:
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", code, PROMPT, str(model)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[0]) - began


def seconds_of_help() -> float:
    began = time.time()
    subprocess.run([sys.executable, "pipeline.py", "--help"], cwd=ROOT, capture_output=True, check=True)
    return time.time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "diffusers"
        write_diffusers_folder(DEMO, folder)
        times: dict[str, list[float]] = {"help": [], "ours": [], "diffusers": []}
        for run in range(runs + 1):  # the first round fills the disk cache and does not count
            measured = {
                "help": seconds_of_help(),
                "ours": seconds_to_first_step(OURS, DEMO),
                "diffusers": seconds_to_first_step(DIFFUSERS, folder),
            }
            for name, value in measured.items():
                if run:
                    times[name].append(value)
    rows = [timing_row(name, summarise(values)) for name, values in times.items()]
    medians = {name: summarise(values).median for name, values in times.items()}
    write_result("start", rows, diffusers_over_ours=medians["diffusers"] / medians["ours"])


if __name__ == "__main__":
    main()
