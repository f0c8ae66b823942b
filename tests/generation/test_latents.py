"""Decoding never gives a black picture, and decoding in tiles gives nearly the same picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules.core.errors import LightDiffusionError
from modules.generation import latents
from modules.models.configs import VAEConfig
from modules.models.vae import working_bytes
from tests import tiny


def overflowing_vae() -> torch.nn.Module:
    """A VAE whose decoder exceeds float16's range, as SD1.x's own can."""
    vae = tiny.vae()
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(1e5)
        vae.decoder.conv_in.bias.mul_(1e5)
    return vae


def test_half_precision_overflow_is_decoded_again_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    vae, z = overflowing_vae(), torch.randn(1, 4, 4, 4)
    expected = latents.decode_latents(vae, z)
    picture = latents.decode_latents(vae.half(), z)
    assert torch.isfinite(picture).all()
    assert (picture - expected).abs().max() < 0.05
    told = ["The VAE overflowed in float16; it computes in float32 from now on."]
    assert caplog.messages == told and next(vae.parameters()).dtype == torch.float32
    runs: list[torch.dtype] = []

    def run(z: Tensor) -> Tensor:
        runs.append(z.dtype)
        return vae.decode(z)

    assert torch.equal(latents.decode_latents(vae, z, run), picture)
    assert runs == [torch.float32] and caplog.messages == told, "decoded once, and told once"


def test_a_gpu_with_bfloat16_takes_it_after_an_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "has_bfloat16", lambda device: True)
    vae, z = overflowing_vae(), torch.randn(1, 4, 4, 4)
    expected = latents.decode_latents(vae, z)
    assert (latents.decode_latents(vae.half(), z) - expected).abs().max() < 0.1
    assert next(vae.parameters()).dtype == torch.bfloat16


def test_the_encoder_is_converted_after_an_overflow_too() -> None:
    vae, image = tiny.vae(), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1e5)
    expected = latents.encode_pictures(vae, image)
    assert (latents.encode_pictures(vae.half(), image) - expected).abs().max() < 0.05
    assert next(vae.parameters()).dtype == torch.float32


def test_a_vae_that_does_not_overflow_stays_in_float16() -> None:
    vae = tiny.vae().half()
    latents.decode_latents(vae, torch.randn(1, 4, 4, 4))
    latents.encode_pictures(vae, torch.rand(1, 3, 32, 32))
    assert next(vae.parameters()).dtype == torch.float16


def test_a_picture_of_nans_is_an_error_and_not_a_black_file() -> None:
    vae = tiny.vae()
    with torch.no_grad():
        vae.decoder.conv_in.weight.fill_(float("nan"))
    with pytest.raises(LightDiffusionError, match="NaN"):
        latents.decode_latents(vae.half(), torch.randn(1, 4, 4, 4))
    with pytest.raises(LightDiffusionError, match="NaN"):
        latents.decode_latents(tiny.vae().half(), torch.full((1, 4, 4, 4), torch.nan))
    assert next(vae.parameters()).dtype == torch.float16, "a wider type does not help"


def test_tiles_agree_with_the_whole_for_a_local_function() -> None:
    """For a function that ignores neighbours, tiling and feathering must change nothing."""

    def local(x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x[:, :3].tanh(), scale_factor=8.0, mode="nearest")

    x = torch.randn(2, 4, 83, 70)
    out = latents.tiled(local, x, channels=3, scale=8, tile=32, overlap=8)
    assert torch.allclose(out, local(x), atol=1e-6)


@pytest.mark.parametrize("direction", ["decode", "encode"])
def test_short_of_memory_the_vae_works_in_tiles(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny.vae()
    x = torch.rand(1, 4, 80, 72) if direction == "decode" else torch.rand(1, 3, 640, 576)
    run = latents.decode_latents if direction == "decode" else latents.encode_pictures
    whole = run(vae, x)
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(latents, "free_memory", lambda device: 0)
    tiled = latents.tiled

    def spy(run: object, x: Tensor, **options: object) -> Tensor:
        calls.append(tuple(x.shape))
        return tiled(run, x, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(latents, "tiled", spy)
    pieces = run(vae, x)
    assert calls and pieces.shape == whole.shape and torch.isfinite(pieces).all()
    assert torch.corrcoef(torch.stack([pieces.flatten(), whole.flatten()]))[0, 1] > 0.8


def test_out_of_memory_on_the_device_falls_back_to_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny.vae()
    decode = vae.decode

    def small_only(z: Tensor) -> Tensor:
        if z.shape[-1] > latents.TILES[0]:
            raise torch.OutOfMemoryError("pretended")
        return decode(z)

    monkeypatch.setattr(vae, "decode", small_only)
    assert latents.decode_latents(vae, torch.randn(1, 4, 8, 100)).shape == (1, 3, 64, 800)


@pytest.mark.parametrize(
    ("gigabytes", "tries"),
    [(24.0, [None, 64, 32]), (5.8, [None, 64, 32]), (5.6, [64, 32]), (1.5, [64, 32]), (1.3, [32]), (0.0, [32])],
)
def test_free_memory_decides_on_the_tiles_of_a_picture_of_1024_pixels(
    gigabytes: float, tries: list[int | None]
) -> None:
    """In float16 the whole picture takes 4.57 GB, and a tile of 64 x 64 cells 1.14 GB."""
    per_cell = working_bytes(VAEConfig(), 1, torch.float16)
    assert latents.tile_sizes(128 * 128, per_cell, int(gigabytes * 1e9)) == tries


def test_smaller_tiles_follow_when_the_larger_ones_do_not_fit_either() -> None:
    vae = tiny.vae()
    sides: list[int] = []

    def small_only(z: Tensor) -> Tensor:
        sides.append(z.shape[-1])
        if z.shape[-1] > 32:
            raise torch.OutOfMemoryError("pretended")
        return vae.decode(z)

    assert latents.decode_latents(vae, torch.randn(1, 4, 8, 70), small_only).shape == (1, 3, 64, 560)
    assert sides == [70, 64, 32, 32, 32]
