r"""Computes FID and CLIP score of a folder of pictures, in the way of MLPerf's rules for SDXL.

    ./pipeline.sh --prompts captions.txt --output-dir half --checkpoint sd_xl_base_1.0 --stable-fast
    python -m benchmarks.quality.judge_folder half --inception inception.pt --reference val2014.npz \
        --clip clip-vit-base-patch32

MLPerf takes 5,000 captions of COCO 2014, 1024 x 1024 pixels, 20 steps and guidance 8. In its window, FID is from 23.01
to 23.95 and the CLIP score from 31.69 to 31.81. With fewer pictures FID is larger, so compare only equal numbers.

--inception is a TorchScript file. Make one in another environment, which has torchvision and pytorch-fid:
    network = pytorch_fid.inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    torch.jit.trace(network, torch.zeros(1, 3, 299, 299)).save("inception.pt")
--reference has the statistics of real pictures: an .npz of pytorch-fid with mu and sigma (MLPerf's val2014.npz), or a
folder of these pictures. --clip is a folder of transformers' CLIPModel; MLPerf takes OpenAI's ViT-B/32. A caption is
the prompt that a PNG of ours holds, or a line of --captions, in the order of the pictures' names.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.scores import (
    Network,
    Statistics,
    clip_score,
    frechet_distance,
    inception_features,
    statistics_of,
)
from modules.core.errors import LightDiffusionError, ModelFileError, OptionsError
from modules.images.metadata import parameters_of, parse_parameters
from modules.images.open import open_image
from modules.text.tokenizer import Tokenizer

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder and its folders, by name. Raises OptionsError if there are fewer than two."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if len(files) < 2:
        raise OptionsError(f"{folder} holds {len(files)} pictures: name a folder with at least two, better with 5,000.")
    return files


def captions_of(files: Sequence[Path], captions: Path | None) -> list[str]:
    """One caption for each picture. Raises OptionsError if there is none for one."""
    if captions is None:
        return [prompt_of(file) for file in files]
    try:
        lines = captions.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"{captions} cannot be read as captions: {error}.") from error
    if len(lines) != len(files):
        raise OptionsError(f"{captions} has {len(lines)} lines for {len(files)} pictures: give one line for each.")
    return lines


def prompt_of(file: Path) -> str:
    text = parameters_of(open_image(file))
    if not text:
        raise OptionsError(f"{file} holds no prompt: give --captions FILE with a line for each picture.")
    return parse_parameters(text)[0]


def inception_from(file: Path, device: torch.device) -> Network:
    """Raises ModelFileError if this is not a TorchScript file."""
    try:
        return torch.jit.load(str(file), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ModelFileError(f"{file} cannot be read as TorchScript ({line}): --help says how to make it.") from error


def reference_from(path: Path, network: Network, device: torch.device) -> Statistics:
    """Raises OptionsError if these are neither statistics nor pictures."""
    if path.is_dir():
        return seen_by(network, pictures_in(path), device)
    try:
        with np.load(path, allow_pickle=False) as kept:
            mean, covariance = (torch.from_numpy(np.asarray(kept[name], dtype=np.float64)) for name in ("mu", "sigma"))
    except (OSError, KeyError, ValueError) as error:
        raise OptionsError(f"{path} has no statistics mu and sigma ({error}): name an .npz or a folder.") from error
    return Statistics(mean, covariance)


def seen_by(network: Network, files: Sequence[Path], device: torch.device) -> Statistics:
    return statistics_of([inception_features(network, open_image(file), device) for file in files])


def clip_from(folder: Path, device: torch.device) -> Any:
    """Raises OptionsError without transformers, and ModelFileError if the folder holds no CLIPModel."""
    try:
        from transformers import CLIPModel
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise OptionsError("--clip needs transformers: .venv/bin/pip install -r requirements-extra.txt") from error
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder} is not a folder of transformers' CLIPModel: it has no config.json.")
    disable_progress_bar()
    try:
        return CLIPModel.from_pretrained(folder, local_files_only=True).eval().to(device)
    except (OSError, ValueError, RuntimeError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ModelFileError(f"{folder} cannot be read as transformers' CLIPModel: {line}") from error


@torch.inference_mode()
def judge(arguments: argparse.Namespace) -> dict[str, float]:
    """FID and CLIP score, as far as they were asked for."""
    device = torch.device(arguments.device)
    files = pictures_in(arguments.folder)
    found: dict[str, float] = {"pictures": len(files)}
    if arguments.inception is not None:
        network = inception_from(arguments.inception, device)
        reference = reference_from(arguments.reference, network, device)
        ours = seen_by(network, files, device)
        if ours.mean.shape != reference.mean.shape:
            raise OptionsError(
                f"{arguments.reference} is about {len(reference.mean)} features and the network gives "
                f"{len(ours.mean)}: take those of the same network."
            )
        found["fid"] = frechet_distance(ours, reference)
    if arguments.clip is not None:
        captions = captions_of(files, arguments.captions)
        model, tokenizer = clip_from(arguments.clip, device), Tokenizer()
        pairs = zip(files, captions, strict=True)
        found["clip_score"] = statistics.fmean(
            clip_score(model, tokenizer, open_image(file), caption) for file, caption in pairs
        )
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the pictures")
    parser.add_argument("--inception", type=Path, help="TorchScript file of the network for FID")
    parser.add_argument("--reference", type=Path, help="statistics (.npz) or folder of real pictures, for FID")
    parser.add_argument("--clip", type=Path, help="folder of a CLIPModel, for the CLIP score")
    parser.add_argument("--captions", type=Path, help="a line for each picture; default: the prompts in the pictures")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(words)
    if (arguments.inception is None) != (arguments.reference is None):
        parser.error("FID needs both --inception and --reference")
    if arguments.inception is None and arguments.clip is None:
        parser.error("nothing to compute: give --inception and --reference, or --clip, or all of them")
    try:
        print(json.dumps(judge(arguments)))
    except LightDiffusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
