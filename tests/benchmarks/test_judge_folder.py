"""FID and CLIP score against scipy and transformers, with random networks; one line for each thing that is missing."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from benchmarks.quality import judge_folder
from benchmarks.quality.scores import TOKENS, clip_pixels, frechet_distance, statistics_of
from modules.text.tokenizer import BOS, EOS, Tokenizer

CAPTIONS = ["a red circle", "two cats, " * 60, "a boat (on the sea)", "sunset"]


def noise(seed: int, width: int = 40, height: int = 24) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


class Eyes(nn.Module):
    """As pytorch-fid's Inception: a list with features [1, F, 1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(3, 3, 7, stride=7)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.convolution(x).tanh().mean((2, 3), keepdim=True)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder, first in (("ours", 0), ("real", 10)):
        (tmp_path / folder).mkdir()
        for number, caption in enumerate(CAPTIONS):
            text = PngImagePlugin.PngInfo()
            text.add_text("parameters", f"{caption}\nSteps: 20, Sampler: Euler, Seed: 1")
            noise(first + number).save(tmp_path / folder / f"{number}.png", pnginfo=text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, but what others made with it is around
        torch.jit.trace(Eyes(), torch.zeros(1, 3, 299, 299)).save(str(tmp_path / "eyes.pt"))
    torch.manual_seed(2)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**size, "vocab_size": EOS + 1, "eos_token_id": EOS},
        vision_config={**size, "image_size": 16, "patch_size": 8},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    capsys.readouterr()  # what came before
    code = judge_folder.main([*map(str, words), "--device", "cpu"])
    out, error = capsys.readouterr()
    assert (code == 0) == (not error) and (out + error).count("\n") == 1
    return code, out or error


def by_scipy(first: np.ndarray, second: np.ndarray) -> float:
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(root)))


@pytest.mark.parametrize("rows", [50, 6])  # as well as fewer pictures than features
def test_the_distance_is_that_of_scipy(rows: int) -> None:
    random = np.random.default_rng(3)
    mixing = random.normal(size=(12, 12))
    first, second = random.normal(size=(rows, 12)) @ mixing, 0.5 + random.normal(size=(80, 12))
    ours = frechet_distance(*(statistics_of([*torch.from_numpy(each)]) for each in (first, second)))
    assert ours == pytest.approx(by_scipy(first, second), rel=1e-5)
    assert frechet_distance(*[statistics_of([*torch.from_numpy(first)])] * 2) == pytest.approx(0, abs=1e-4)


def test_fid_of_a_folder_and_of_kept_statistics(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, np.ndarray] = {}
    for folder in ("ours", "real"):
        pictures = [np.asarray(Image.open(project / folder / f"{number}.png")) for number in range(4)]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
        resized = nn.functional.interpolate(pixels, (299, 299), mode="bilinear")
        seen[folder] = Eyes()(resized * 2 - 1)[0].flatten(1).detach().double().numpy()
    expected = by_scipy(seen["ours"], seen["real"])
    np.savez(project / "real.npz", mu=seen["real"].mean(0), sigma=np.cov(seen["real"], rowvar=False))
    for reference in ("real", "real.npz"):
        words = (project / "ours", "--inception", project / "eyes.pt", "--reference", project / reference)
        found = json.loads(said(capsys, *words)[1])
        assert found["pictures"] == 4 and found["fid"] == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-6


def test_clip_score_of_the_prompts_in_the_pictures(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer, scores = CLIPModel.from_pretrained(project / "clip").eval(), Tokenizer(), []
    for number, caption in enumerate(CAPTIONS):
        ids = torch.tensor([[BOS, *tokenizer.encode(caption.strip())[: TOKENS - 2], EOS]])
        with torch.no_grad():
            seen = model(input_ids=ids, pixel_values=clip_pixels(noise(number), 16))
        scores.append(float(seen.logits_per_image / model.logit_scale.exp()))
    found = json.loads(said(capsys, project / "ours", "--clip", project / "clip")[1])
    assert found["clip_score"] == pytest.approx(100 * np.mean(scores), rel=1e-4)
    (project / "captions.txt").write_text("\n".join(CAPTIONS))
    words = (project / "ours", "--clip", project / "clip", "--captions", project / "captions.txt")
    assert json.loads(said(capsys, *words)[1]) == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("size", [(40, 24), (24, 42), (16, 16)])
def test_pictures_are_given_to_clip_as_transformers_gives_them(size: tuple[int, int]) -> None:
    side = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    expected = CLIPImageProcessor(**side)(noise(5, *size), return_tensors="pt")["pixel_values"]
    assert (clip_pixels(noise(5, *size), 16) - expected).abs().max() < 0.02


def test_what_is_missing_is_said_in_a_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, eyes = project / "ours", project / "eyes.pt"
    (project / "empty").mkdir()
    (project / "short.txt").write_text("a cat")
    np.savez(project / "wide.npz", mu=np.zeros(5), sigma=np.eye(5))
    for words, told in (
        ((project / "empty", "--clip", project / "clip"), "holds 0 pictures"),
        ((ours, "--clip", project / "empty"), "not a folder of transformers' CLIPModel"),
        ((ours, "--clip", project / "clip", "--captions", project / "short.txt"), "has 1 lines for 4 pictures"),
        ((ours, "--clip", project / "clip", "--captions", project / "none.txt"), "cannot be read as captions"),
        ((ours, "--inception", project / "none.pt", "--reference", ours), "cannot be read as TorchScript"),
        ((ours, "--inception", project / "short.txt", "--reference", ours), "cannot be read as TorchScript"),
        ((ours, "--inception", eyes, "--reference", project / "none.npz"), "has no statistics"),
        ((ours, "--inception", eyes, "--reference", project / "short.txt"), "has no statistics"),
        ((ours, "--inception", eyes, "--reference", project / "wide.npz"), "is about 5 features"),
    ):
        code, line = said(capsys, *words)
        assert code in (2, 3) and line.startswith("error: ") and told in line
    noise(9).save(ours / "9.png")
    assert "9.png holds no prompt" in said(capsys, ours, "--clip", project / "clip")[1]
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "needs transformers" in said(capsys, project / "real", "--clip", project / "clip")[1]
