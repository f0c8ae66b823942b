"""diffusers' and transformers' networks of the same shape as ours, used as independent references."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, ControlNetUnionModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from modules.models.configs import TextConfig, UNetConfig, VAEConfig
from modules.text import tokenizer

MERGES = Path(tokenizer.__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference as a fraction of the expected values' root mean square."""
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.square().mean().sqrt()).item()


def _shared(config: UNetConfig) -> dict[str, object]:
    heads = [config.heads_at(width) for width in config.channels]
    return {
        "in_channels": config.in_channels,
        "block_out_channels": config.channels,
        "layers_per_block": config.res_blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in config.attention_levels],
        "cross_attention_dim": config.context_dim,
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "norm_num_groups": config.groups,
        "use_linear_projection": config.linear_projection,
        # The middle block takes the last number, though the refiner's last level has no attention.
        "transformer_layers_per_block": [depth or config.middle_depth or 1 for depth in config.depths],
    }


def _vector(config: UNetConfig, pooled: int) -> dict[str, object]:
    """SDXL's settings: the vector holds the pooled text and six numbers (the refiner: five) as Fourier features."""
    if config.vector_dim is None:
        return {}
    width = config.vector_dim - pooled
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": width // (5 if width % 6 else 6),
        "projection_class_embeddings_input_dim": config.vector_dim,
    }


def diffusers_unet(config: UNetConfig, *, pooled: int = 1280) -> UNet2DConditionModel:
    """`pooled`: the width of SDXL's pooled text."""
    up_types = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(config.attention_levels)]
    settings = _shared(config) | _vector(config, pooled) | _distilled(config)
    return UNet2DConditionModel(out_channels=config.out_channels, up_block_types=up_types, **settings).eval()


def _distilled(config: UNetConfig) -> dict[str, object]:
    """The settings of SSD-1B and Vega: no attention in the middle, and transformer depths of the decoder's own."""
    middle = {} if config.middle_depth else {"mid_block_type": "UNetMidBlock2D"}
    if not config.up_depths:
        return middle
    levels = [[max(depth, 1) for depth in level] for level in reversed(config.up_depths)]
    return middle | {"reverse_transformer_layers_per_block": levels}


def diffusers_controlnet(config: UNetConfig, *, pooled: int = 1280, kinds: int = 0) -> nn.Module:
    """`pooled`: the width of SDXL's pooled text. `kinds`: how many a union ControlNet knows; 0 for an ordinary one."""
    settings = _shared(config) | _vector(config, pooled) | {"conditioning_embedding_out_channels": (16, 32, 96, 256)}
    if not kinds:
        return ControlNetModel(**settings).eval()
    width = config.channels[0]
    return ControlNetUnionModel(
        num_control_type=kinds, num_trans_channel=width, num_proj_channel=width, **settings
    ).eval()


def diffusers_vae(config: VAEConfig) -> AutoencoderKL:
    levels = len(config.channels)
    return AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=config.res_blocks,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
    ).eval()


def transformers_text(config: TextConfig, *, layers: int | None = None) -> CLIPTextModel:
    """`layers` truncates the encoder, as diffusers does when saving SD2's. A projection adds the pooled output."""
    kind = CLIPTextModelWithProjection if config.projection else CLIPTextModel
    return kind(
        CLIPTextConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=layers or config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.positions,
            hidden_act=config.activation,
            eos_token_id=49407,
            projection_dim=config.projection or 512,
            attn_implementation="sdpa",
        )
    ).eval()


def transformers_tokenizer(folder: Path, **settings: str) -> CLIPTokenizer:
    """transformers' tokenizer, with vocab.json and merges.txt generated from our merges file in this empty folder."""
    merges = gzip.decompress(MERGES.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    letters = [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]
    words = letters + [f"{c}</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=77, **settings)


def random_ids(batch: int, length: int = 77) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 49406, (batch, length), generator=generator)
