"""Tiny autoencoders of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from tests.stable_fast.families.trial import Network
from tests.stable_fast.pipelines.tiny_pipelines import randomised, vae
from tests.stable_fast.pipelines.tiny_tail import video_diffusion

PICTURE = {"batch": (2, 3), "height": (4, 6), "width": (4, 3)}
SHAPE = ("batch", None, "2*height", "2*width")


class Method(nn.Module):
    """A network called by one of its methods, such as `encode`."""

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return getattr(self.network, self.method)(x)


def autoencoder(method: str, channels: int) -> Network:
    return Network(
        make=lambda: Method(vae(), method),
        sizes=PICTURE,
        call=lambda at: {"x": torch.randn(at["batch"], channels, 2 * at["height"], 2 * at["width"])},
        dims={"x": SHAPE},
    )


def tiny_autoencoder() -> Any:
    torch.manual_seed(1)
    return randomised(
        diffusers.AutoencoderTiny(
            encoder_block_out_channels=(32, 32),
            decoder_block_out_channels=(32, 32),
            num_encoder_blocks=(1, 2),
            num_decoder_blocks=(2, 1),
        )
    )


NETWORKS: Mapping[str, Network] = {
    "AutoencoderKL, `encode`": autoencoder("encode", 3),
    "AutoencoderKL, `decode`": autoencoder("decode", 4),
    "AutoencoderKL, `forward`": autoencoder("forward", 3),
    "AutoencoderTiny": Network(
        make=tiny_autoencoder,
        sizes=PICTURE,
        call=lambda at: {"sample": torch.rand(at["batch"], 3, 2 * at["height"], 2 * at["width"])},
        dims={"sample": SHAPE},
    ),
    "Temporal decoder (Stable Video Diffusion)": Network(
        make=lambda: video_diffusion().vae.decoder,
        sizes=PICTURE,
        call=lambda at: {
            "sample": torch.randn(4 * at["batch"], 4, 2 * at["height"], 2 * at["width"]),
            "image_only_indicator": torch.zeros(at["batch"], 4),
            "num_frames": 4,
        },
        dims={"sample": ("4*batch", None, "2*height", "2*width"), "image_only_indicator": ("batch", None)},
    ),
}
