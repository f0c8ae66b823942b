"""Pictures through upscaling networks: sizes, tiles, and spandrel's networks."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modules.core.errors import ModelFileError
from modules.images import upscale
from modules.images.upscale import load_with_spandrel, upscale_tensor, upscaler_of
from tests.upscalers import esrgan_tensors

CPU = torch.device("cpu")


def doubled(pixels: Tensor) -> Tensor:
    """A local network: doubles the size, then blurs over 5 x 5 pixels."""
    large = F.interpolate(pixels, scale_factor=2, mode="nearest")
    return F.avg_pool2d(F.pad(large, (2, 2, 2, 2), mode="replicate"), 5, stride=1)


def picky(pixels: Tensor) -> Tensor:
    """Accepts only sides that are multiples of four, like the smallest Real-ESRGAN networks."""
    return F.interpolate(F.pixel_shuffle(F.pixel_unshuffle(pixels, 4), 4), scale_factor=3, mode="nearest")


@pytest.mark.parametrize(("height", "width"), [(40, 40), (65, 130), (33, 200), (31, 64)])
def test_tiles_are_seamless(monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    pixels = torch.rand(1, 3, height, width)
    whole = doubled(pixels)
    monkeypatch.setattr(upscale, "TILE", 64)
    torch.testing.assert_close(upscale_tensor(doubled, pixels), whole)


def test_tiles_bound_what_the_network_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def noted(pixels: Tensor) -> Tensor:
        seen.append((pixels.shape[-2], pixels.shape[-1]))
        return doubled(pixels)

    monkeypatch.setattr(upscale, "TILE", 64)
    assert upscale_tensor(noted, torch.rand(1, 3, 150, 100)).shape == (1, 3, 300, 200)
    assert len(seen) > 4 and max(map(max, seen)) <= 64


def test_odd_sides_and_exact_colours() -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (7, 13, 3), dtype=np.uint8))
    larger = upscaler_of(picky, CPU, "picky")(picture)
    assert larger.size == (39, 21)
    assert larger.tobytes() == picture.resize((39, 21), Image.Resampling.NEAREST).tobytes()


def test_invalid_numbers_raise_a_sentence_with_the_name() -> None:
    with pytest.raises(ModelFileError, match="The upscaler broken.pth returned invalid numbers"):
        upscaler_of(lambda pixels: doubled(pixels) * torch.nan, CPU, "broken.pth")(Image.new("RGB", (8, 8)))


def test_without_spandrel_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    before = set(sys.modules)
    with pytest.raises(ModelFileError, match=r"a.pth is not an ESRGAN.*pip install --no-deps spandrel einops"):
        load_with_spandrel(tmp_path / "a.pth", CPU)
    assert not {name for name in set(sys.modules) - before if name.startswith("torchvision")}


@pytest.mark.skipif(find_spec("spandrel") is None, reason="needs spandrel (requirements-extra.txt)")
def test_spandrel_works_without_torchvision(tmp_path: Path) -> None:
    torch.save(esrgan_tensors(growth=32), tmp_path / "a.pth")
    network = load_with_spandrel(tmp_path / "a.pth", CPU)
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match="other.pth is not a usable upscaler"):
        load_with_spandrel(tmp_path / "other.pth", CPU)
