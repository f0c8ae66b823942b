"""Model files on the command line: damaged, of another kind, split into parts, or missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.cli.command import SMALL, run


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/lightdiffusion-evil",)


def lora(path: Path) -> None:
    save_file({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 320, 1, 1)}, path)


def sd3(path: Path) -> None:
    save_file({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(8, 8)}, path)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("cut.safetensors", truncated, ["cut.safetensors"]),
        ("evil.ckpt", lambda p: torch.save({"state_dict": Evil()}, p), ["evil.ckpt", "code"]),
        ("page.safetensors", lambda p: p.write_text("<html>404</html>"), ["page.safetensors"]),
        ("style.safetensors", lora, ["LoRA"]),
        ("big.safetensors", sd3, ["SD3"]),
        ("empty.safetensors", lambda p: p.write_bytes(b""), ["empty.safetensors"]),
    ],
)
def test_bad_checkpoints_are_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Any, words: list[str]
) -> None:
    path = project / "models" / "checkpoints" / name
    tiny.save_checkpoint(path)
    damage(path)
    code, out, err = run(capsys, *SMALL, "--checkpoint", name)
    assert code == 3 and out == "" and err.count("\n") == 1 and err.startswith("error: ")
    assert all(word in err for word in words), err
    assert not Path("/tmp/lightdiffusion-evil").exists()
    assert not list((project / "output").rglob("*.png"))


def test_a_file_that_is_no_vae_is_named_alone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora(project / "models" / "vae" / "style.safetensors")
    code, out, err = run(capsys, *SMALL, "--vae", "style")
    assert code == 3 and out == "" and err.startswith("error: style.safetensors: ") and "LoRA" in err
    assert "tiny" not in err


def test_a_split_checkpoint_makes_the_picture_of_the_whole(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = project / "models"
    tensors = load_file(models / "checkpoints" / "tiny.safetensors")
    parts = {"checkpoints/unet": "model.diffusion_model.", "vae/v": "first_stage_model."}
    for place, prefix in (parts | {"text_encoders/t": "cond_stage_model.transformer."}).items():
        part = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        save_file(part, models / f"{place}.safetensors")
    _, whole, _ = run(capsys, *SMALL, "--seed", "7", "--checkpoint", "tiny")
    for text in ("t", "tiny"):
        split = ("--checkpoint", "unet", "--vae", "v", "--text-encoder", text)
        code, out, err = run(capsys, *SMALL, "--seed", "7", *split)
        assert code == 0, err
        again = run(capsys, "--from-image", out.strip())[1]
        pictures = [Image.open(path.strip()).tobytes() for path in (whole, out, again)]
        assert pictures[0] == pictures[1] == pictures[2]
    code, out, err = run(capsys, *SMALL, "--checkpoint", "unet")
    assert (code, out) == (3, "") and "UNet alone" in err and "--vae" in err and "--text-encoder" in err


def test_without_any_checkpoint_it_says_where_to_put_one(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "models" / "checkpoints" / "tiny.safetensors").unlink()
    code, _, err = run(capsys, *SMALL, "--stable-fast")
    assert code == 3 and "no checkpoint" in err and str(project / "models" / "checkpoints") in err
