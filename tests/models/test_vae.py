"""The autoencoder against diffusers' with the same random weights, and its names against diffusers' converter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from modules.loader.layouts.diffusers import vae_to_ldm
from modules.loader.load_weights import empty_weights, fill_network
from modules.models.configs import SD_VAE, VAEConfig
from modules.models.vae import AutoencoderKL
from tests import tiny
from tests.models.oracles import diffusers_vae, relative_error


def vae_errors(config: VAEConfig, size: tuple[int, int]) -> tuple[float, float, float]:
    """Returns relative errors of the mean, the log-variance and the decoded picture."""
    oracle = tiny.randomise(diffusers_vae(config))
    with empty_weights():
        ours = AutoencoderKL(config)
    fill_network(ours, vae_to_ldm(oracle.state_dict()), torch.device("cpu"), torch.float32, lambda: None, "VAE")
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(1, 3, *size, generator=generator) * 2 - 1
    latent = torch.randn(1, config.latent_channels, size[0] // 8, size[1] // 8, generator=generator)
    with torch.inference_mode():
        mean, logvar = ours.encode_moments(image)
        posterior = oracle.encode(image).latent_dist
        picture = ours.decode(latent)
        expected = oracle.decode(latent).sample
    return (
        relative_error(mean, posterior.mean),
        relative_error(logvar, posterior.logvar),
        relative_error(picture, expected),
    )


@pytest.mark.parametrize("size", [(64, 64), (96, 32)])
def test_vae_equals_diffusers(size: tuple[int, int]) -> None:
    assert max(vae_errors(tiny.VAE, size)) < 1e-4


@pytest.mark.slow
def test_full_vae_equals_diffusers() -> None:
    assert max(vae_errors(SD_VAE, (256, 192))) < 1e-4


def test_diffusers_reads_our_names_as_we_do() -> None:
    ours = tiny.vae().state_dict()
    oracle = diffusers_vae(tiny.VAE)
    converted = convert_ldm_vae_checkpoint({f"first_stage_model.{k}": v for k, v in ours.items()}, oracle.config)
    oracle.load_state_dict({k: v.reshape(oracle.state_dict()[k].shape) for k, v in converted.items()}, strict=True)
    back = vae_to_ldm(oracle.state_dict())
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name].reshape(ours[name].shape), ours[name]) for name in ours)


def test_old_diffusers_attention_names_are_read() -> None:
    new = diffusers_vae(tiny.VAE).state_dict()
    renames = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, tensor in new.items():
        for modern, ancient in renames.items():
            name = name.replace(f"attentions.0.{modern}.", f"attentions.0.{ancient}.")
        old[name] = tensor
    assert old.keys() != new.keys()
    expected, actual = vae_to_ldm(new), vae_to_ldm(old)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_latents_are_scaled_by_the_familys_factor_and_statistics() -> None:
    """By hand, in float64: Playground 2.5's latents have a mean and a deviation for each channel."""
    plain = tiny.vae()
    mean, std = (-1.5, 0.0, 1.25, 2.0), (8.0, 4.0, 0.5, 2.0)
    normed = tiny.vae(dataclasses.replace(tiny.VAE, latent_mean=mean, latent_std=std, scale_factor=0.5))
    z = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    expected = [(z[:, c].double() - mean[c]) * 0.5 / std[c] for c in range(4)]
    assert torch.allclose(normed.scale(z).double(), torch.stack(expected, 1), atol=1e-6)
    assert torch.allclose(normed.unscale(normed.scale(z)), z, atol=1e-5)
    assert torch.equal(plain.scale(z), z * 0.18215) and torch.equal(plain.unscale(z), z / 0.18215)
