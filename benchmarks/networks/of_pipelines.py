"""Networks of diffusers and transformers with random weights, and their calls as diffusers' pipelines make them."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TIMESTEP = 500.0


class Networks:
    """As much of a pipeline as `compile_pipeline` needs."""

    def __init__(self, name: str, network: nn.Module) -> None:
        self.components = {name: network}

    def __call__(self) -> None:
        """Does nothing: the benchmark calls the network."""


@dataclass(kw_only=True)
class Workload:
    """A network and its call. `moving`: the argument that is new in each step, made of `halves` times x.

    `dims`: the named sizes, to compile a text encoder by itself too. `product`: the product's own step on the same x.
    """

    network: Any
    x: Tensor
    moving: str
    arguments: Mapping[str, Any]
    rounds: int
    steps: int
    pipe: Callable[[nn.Module], Any]
    halves: int = 1
    dims: Mapping[str, Any] | None = None
    product: Callable[[], Callable[[Tensor], Tensor]] | None = None

    def call(self, network: Any, x: Tensor) -> Tensor:
        moving = torch.cat([x] * self.halves) if self.halves > 1 else x
        return network(**{**self.arguments, self.moving: moving})[0]


def stable_diffusion(unet: nn.Module) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    nothing: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    scheduler: Any = DDIMScheduler(clip_sample=False, steps_offset=1)
    return StableDiffusionPipeline(unet=unet, scheduler=scheduler, requires_safety_checker=False, **nothing)


def stable_diffusion_xl(unet: nn.Module) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    nothing: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    scheduler: Any = DDIMScheduler(clip_sample=False, steps_offset=1)
    return StableDiffusionXLPipeline(unet=unet, scheduler=scheduler, add_watermarker=False, **nothing)


def recorded(pipe: Any, network: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a pipeline gives the network in its first step, but for the latent."""
    calls: list[dict[str, Any]] = []
    own = network.forward
    signature = inspect.signature(own)

    def record(*args: Any, **kwargs: Any) -> Any:
        calls.append(dict(signature.bind(*args, **kwargs).arguments))
        return own(*args, **kwargs)

    network.forward = record
    pipe.set_progress_bar_config(disable=True)
    pipe(**call, num_inference_steps=2, output_type="latent")
    del network.forward
    return {name: value for name, value in calls[0].items() if name != "sample"}


def video(arguments: argparse.Namespace) -> Workload:
    from diffusers import UNetSpatioTemporalConditionModel

    tiny: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "num_attention_heads": (2, 4),
        "cross_attention_dim": 32,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    }
    shape = tiny if arguments.tiny else {}
    network = made(lambda: UNetSpatioTemporalConditionModel(num_frames=14, **shape), arguments)
    frames, height, width = (2, 8, 8) if arguments.tiny else (14, 72, 128)
    call = {
        "timestep": torch.tensor(TIMESTEP, device=arguments.device),
        "encoder_hidden_states": drawn(arguments, 2, 1, network.config.cross_attention_dim),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]] * 2).to(network.device, network.dtype),
        "return_dict": False,
    }
    x = drawn(arguments, 2, frames, 8, height, width)
    return Workload(
        network=network, x=x, moving="sample", arguments=call, rounds=6, steps=2,
        pipe=lambda unet: Networks("unet", unet),
    )  # fmt: skip


def flux(arguments: argparse.Namespace) -> Workload:
    from diffusers import FluxTransformer2DModel

    tiny: dict[str, Any] = {"attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 32}
    tiny |= {"pooled_projection_dim": 32, "axes_dims_rope": (8, 12, 12)}
    layers = (1, 2) if arguments.tiny else (4, 8)
    shape: dict[str, Any] = {"num_layers": layers[0], "num_single_layers": layers[1], "guidance_embeds": True}
    network = made(lambda: FluxTransformer2DModel(**shape, **(tiny if arguments.tiny else {})), arguments)
    side, tokens = (8, 16) if arguments.tiny else (64, 512)
    places = torch.zeros(side, side, 3)
    places[..., 1] += torch.arange(side)[:, None]
    places[..., 2] += torch.arange(side)
    call = {
        "timestep": drawn(arguments, 1).fill_(TIMESTEP / 1000),
        "guidance": torch.full([1], 3.5, device=arguments.device),
        "pooled_projections": drawn(arguments, 1, network.config.pooled_projection_dim),
        "encoder_hidden_states": drawn(arguments, 1, tokens, network.config.joint_attention_dim),
        "txt_ids": torch.zeros(tokens, 3).to(network.device, network.dtype),
        "img_ids": places.reshape(-1, 3).to(network.device, network.dtype),
        "joint_attention_kwargs": {},
        "return_dict": False,
    }
    return Workload(
        network=network, x=drawn(arguments, 1, side**2, 64), moving="hidden_states", arguments=call, rounds=10, steps=3,
        pipe=lambda transformer: Networks("transformer", transformer),
    )  # fmt: skip


def clip(arguments: argparse.Namespace) -> Workload:
    from transformers import CLIPTextConfig, CLIPTextModel

    layers, width = (2, 64) if arguments.tiny else (12, 768)
    shape: dict[str, Any] = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    config: Any = CLIPTextConfig(**shape, num_attention_heads=layers, vocab_size=49408)
    return encoder(made(lambda: CLIPTextModel(config), arguments), 77, {"attention_mask": None}, (20, 20))


def t5(arguments: argparse.Namespace) -> Workload:
    from transformers import T5Config, T5EncoderModel

    shape: dict[str, Any] = {
        "d_model": 4096,
        "d_kv": 64,
        "num_heads": 64,
        "d_ff": 10240,
        "num_layers": arguments.layers,
    }
    if arguments.tiny:
        shape = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "num_layers": 2}
    config: Any = T5Config(**shape, feed_forward_proj="gated-gelu")
    tokens = 16 if arguments.tiny else 512
    return encoder(made(lambda: T5EncoderModel(config), arguments), tokens, {"output_hidden_states": False}, (10, 5))


def encoder(network: Any, tokens: int, call: Mapping[str, Any], rounds: tuple[int, int]) -> Workload:
    ids = torch.randint(1000, [1, tokens], device=network.device)
    return Workload(
        network=network, x=ids, moving="input_ids", arguments=call, rounds=rounds[0], steps=rounds[1],
        pipe=lambda text_encoder: Networks("text_encoder", text_encoder), dims={"input_ids": ("batch", "tokens")},
    )  # fmt: skip


def made(network: Callable[[], Any], arguments: argparse.Namespace) -> Any:
    torch.manual_seed(0)
    with torch.device(arguments.device):
        built = network()
    # `torch.Tensor([...])`, as in SVD's AlphaBlender, makes a tensor on the CPU all the same.
    return built.to(arguments.device, type_of(arguments)).eval().requires_grad_(False)


def type_of(arguments: argparse.Namespace) -> torch.dtype:
    return torch.float16 if torch.device(arguments.device).type == "cuda" else torch.float32


def drawn(arguments: argparse.Namespace, *shape: int) -> Tensor:
    return torch.randn(*shape, device=arguments.device, dtype=type_of(arguments))


WITHOUT_PRODUCT: Mapping[str, Callable[[argparse.Namespace], Workload]] = {
    "svd": video,
    "flux": flux,
    "clip": clip,
    "t5": t5,
}
