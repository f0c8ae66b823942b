"""The ControlNet: a copy of the UNet's encoder half that turns a hint picture into residuals for the UNet."""

from __future__ import annotations

from torch import Tensor, nn

from modules.models.configs import UNetConfig
from modules.models.unet import Block, TimedNetwork, encoder_blocks, middle_block

HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
HINT_STRIDES = (1, 1, 2, 1, 2, 1, 2)


def hint_stem(hint_channels: int, width: int) -> nn.Sequential:
    """Builds the convolutions that reduce a hint to the latent's size (an eighth per side)."""
    layers: list[nn.Module] = []
    before = hint_channels
    for channels, stride in zip(HINT_CHANNELS, HINT_STRIDES, strict=True):
        layers += [nn.Conv2d(before, channels, 3, stride=stride, padding=1), nn.SiLU()]
        before = channels
    return nn.Sequential(*layers, nn.Conv2d(before, width, 3, padding=1))


class ControlNet(TimedNetwork):
    """ControlNet (Zhang et al. 2023, arXiv 2302.05543) in cldm layout."""

    def __init__(self, config: UNetConfig, hint_channels: int = 3) -> None:
        super().__init__(config)
        self.input_blocks, skips = encoder_blocks(config)
        self.input_hint_block = hint_stem(hint_channels, config.channels[0])
        self.zero_convs = nn.ModuleList([Block([nn.Conv2d(channels, channels, 1)]) for channels in skips])
        self.middle_block = middle_block(config)
        width = config.channels[-1]
        self.middle_block_out = Block([nn.Conv2d(width, width, 1)])

    def forward(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Returns residuals for each input block of the UNet, then for its middle block.

        x [B, in_channels, h, w], hint [B, hint_channels, 8h, 8w] in 0..1, timesteps [B] float32,
        context [B, S, context_dim], vector [B, vector_dim] for SDXL.
        """
        time = self.embed_time(timesteps, vector, x.dtype)
        guidance = self.guidance(hint)
        residuals: list[Tensor] = []
        for index, (block, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs, strict=True)):
            x = block(x, time, context)
            if index == 0:
                x = x + guidance
            residuals.append(zero_conv(x, time, context))
        x = self.middle_block(x, time, context)
        residuals.append(self.middle_block_out(x, time, context))
        return tuple(residuals)

    def guidance(self, hint: Tensor) -> Tensor:
        """Returns what the hint adds to the first block [B, channels, h, w]."""
        return self.input_hint_block(hint)
