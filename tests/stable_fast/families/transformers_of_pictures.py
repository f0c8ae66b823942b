"""Tiny transformers of diffusers that denoise pictures, with calls as its pipelines make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch

from tests.stable_fast.families.trial import Network, Sizes
from tests.stable_fast.pipelines.tiny_pipelines import WIDTH, randomised
from tests.stable_fast.pipelines.tiny_tail import flux, pixart

MOMENTS = {
    **{"hidden_states": "latent", "timestep": "time", "encoder_hidden_states": "prompt"},
    **{"pooled_projections": "prompt", "encoder_attention_mask": "prompt", "guidance": "prompt"},
}
PICTURE = {"batch": (2, 3), "height": (4, 6), "width": (4, 3), "tokens": (7, 12)}
PATCHES = {"batch": (2, 3), "patches": (16, 20), "tokens": (7, 12)}
PICTURE_DIMS = {"hidden_states": ("batch", None, "2*height", "2*width"), "timestep": ("batch",)}
PROMPT_DIMS = {"encoder_hidden_states": ("batch", "tokens", None)}
MASK_DIMS = {"encoder_attention_mask": ("batch", "tokens")}

Call = Callable[[Sizes], dict[str, Any]]


def times(at: Sizes) -> torch.Tensor:
    return torch.full((at["batch"],), 500.0)


def picture(channels: int = 4, width: int = WIDTH, **more: Callable[[Sizes], Any]) -> Call:
    """Calls with a latent picture and a prompt; `more` makes further inputs."""
    return lambda at: {
        "hidden_states": torch.randn(at["batch"], channels, 2 * at["height"], 2 * at["width"]),
        "encoder_hidden_states": torch.randn(at["batch"], at["tokens"], width),
        "timestep": times(at),
        "return_dict": False,
        **{name: make(at) for name, make in more.items()},
    }


def even_picture(**more: Callable[[Sizes], Any]) -> Call:
    """Calls with an even number of patches on each side: some networks cut their places from the middle of a table."""
    return lambda at: picture(**more)({**at, "height": 2 * at["height"], "width": 2 * at["width"]})


EVEN_DIMS = {"hidden_states": ("batch", None, "4*height", "4*width")}


def patches(channels: int, axes: int, **more: Callable[[Sizes], Any]) -> Call:
    """Calls with a picture in patches and their places, as Flux takes them."""
    return lambda at: {
        "hidden_states": torch.randn(at["batch"], at["patches"], channels),
        "encoder_hidden_states": torch.randn(at["batch"], at["tokens"], WIDTH),
        "timestep": times(at) / 1000,
        "img_ids": torch.arange(at["patches"])[:, None].expand(-1, axes).float(),
        "txt_ids": torch.zeros(at["tokens"], axes),
        "return_dict": False,
        **{name: make(at) for name, make in more.items()},
    }


PATCH_DIMS = {
    "hidden_states": ("batch", "patches", None),
    "timestep": ("batch",),
    "img_ids": ("patches", None),
    "txt_ids": ("tokens", None),
    **PROMPT_DIMS,
}


def mask(at: Sizes) -> torch.Tensor:
    """All tokens but the last two are words."""
    return torch.arange(at["tokens"]).expand(at["batch"], -1) < at["tokens"] - 2


def made(kind: str, **config: Any) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(3)
        return randomised(getattr(diffusers, kind)(**config))

    return make


SCALED = "places are scaled by the size of the picture, in decimal numbers"  # a reason

HEADS: Mapping[str, Any] = {"attention_head_dim": 16, "num_attention_heads": 2}
BLOCKS: Mapping[str, Any] = {"num_layers": 1, "num_single_layers": 1, **HEADS, "joint_attention_dim": WIDTH}


def on_pictures(make: Callable[[], Any], call: Call, dims: Mapping[str, Any] | None = None, **more: Any) -> Network:
    known: dict[str, Any] = {"sizes": PICTURE, "moments": MOMENTS, **more}
    return Network(make=make, call=call, dims={**PICTURE_DIMS, **PROMPT_DIMS, **(dims or {})}, **known)


def on_patches(make: Callable[[], Any], call: Call, dims: Mapping[str, Any] | None = None, **more: Any) -> Network:
    known: dict[str, Any] = {"sizes": PATCHES, "moments": MOMENTS, **more}
    return Network(make=make, call=call, dims={**PATCH_DIMS, **(dims or {})}, **known)


hunyuan = made(
    "HunyuanDiT2DModel",
    **{"sample_size": 16, "num_layers": 2, "patch_size": 2, "in_channels": 4, "hidden_size": 32, **HEADS},
    **{"cross_attention_dim": WIDTH, "cross_attention_dim_t5": WIDTH, "pooled_projection_dim": 16},
    **{"text_len": 7, "text_len_t5": 9},
)


def hunyuan_call(at: Sizes) -> dict[str, Any]:
    prompts = {name: torch.randn(at["batch"], count, WIDTH) for name, count in (("", 7), ("_t5", 9))}
    return {
        "hidden_states": torch.randn(at["batch"], 4, 2 * at["height"], 2 * at["width"]),
        "timestep": times(at),
        **{f"encoder_hidden_states{name}": prompt for name, prompt in prompts.items()},
        **{f"text_embedding_mask{name}": torch.ones(prompt.shape[:2]) for name, prompt in prompts.items()},
        "image_meta_size": torch.rand(at["batch"], 6),
        "style": torch.zeros(at["batch"], dtype=torch.long),
        "return_dict": False,
    }


HUNYUAN_DIMS = {
    **{f"encoder_hidden_states{name}": ("batch", None, None) for name in ("", "_t5")},
    **{f"text_embedding_mask{name}": ("batch", None) for name in ("", "_t5")},
    "image_meta_size": ("batch", None),
    "style": ("batch",),
}

qwen_image = made(
    "QwenImageTransformer2DModel",
    in_channels=16,
    out_channels=4,
    axes_dims_rope=(8, 4, 4),
    num_layers=2,
    **HEADS,
    joint_attention_dim=WIDTH,
)


def qwen_image_call(at: Sizes) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(at["batch"], 4 * at["height"], 16),
        "encoder_hidden_states": torch.randn(at["batch"], at["tokens"], WIDTH),
        "encoder_hidden_states_mask": torch.ones(at["batch"], at["tokens"], dtype=torch.long),
        "timestep": times(at) / 1000,
        "img_shapes": [[(1, at["height"], 4)]],
        "return_dict": False,
    }


def z_image_call(at: Sizes) -> dict[str, Any]:
    return {
        "x": [torch.randn(4, 1, 2 * at["height"], 8) for _ in range(at["batch"])],
        "t": torch.full((at["batch"],), 0.5),
        "cap_feats": [torch.randn(at["tokens"], WIDTH) for _ in range(at["batch"])],
        "return_dict": False,
    }


def class_call(at: Sizes) -> dict[str, Any]:
    """A square latent picture of a class: DiT takes no other shape."""
    return {
        "hidden_states": torch.randn(at["batch"], 4, 2 * at["side"], 2 * at["side"]),
        "timestep": times(at).long(),
        "class_labels": torch.arange(at["batch"]),
        "return_dict": False,
    }


NETWORKS: Mapping[str, Network] = {
    "PixArt": on_pictures(
        lambda: pixart().transformer,
        picture(encoder_attention_mask=mask, added_cond_kwargs=lambda _: {"resolution": None, "aspect_ratio": None}),
        MASK_DIMS,
        anew=SCALED,
    ),
    "SD3": on_pictures(
        made(
            "SD3Transformer2DModel",
            **{"sample_size": 16, "in_channels": 4, "out_channels": 4, "num_layers": 2, "pos_embed_max_size": 192},
            **{"joint_attention_dim": WIDTH, "caption_projection_dim": 32, "pooled_projection_dim": 64, **HEADS},
        ),
        even_picture(pooled_projections=lambda at: torch.randn(at["batch"], 64)),
        {"pooled_projections": ("batch", None), **EVEN_DIMS},
    ),
    "Flux": on_patches(
        lambda: flux().transformer,
        patches(16, 3, pooled_projections=lambda at: torch.randn(at["batch"], WIDTH)),
        {"pooled_projections": ("batch", None)},
    ),
    "Flux2": on_patches(
        made("Flux2Transformer2DModel", in_channels=16, axes_dims_rope=(4, 4, 4, 4), **BLOCKS),
        patches(16, 4, guidance=times),
        {"guidance": ("batch",)},
    ),
    "Chroma": on_patches(
        made(
            "ChromaTransformer2DModel",
            in_channels=16,
            axes_dims_rope=(4, 4, 8),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
            **BLOCKS,
        ),
        patches(16, 3),
    ),
    "Hunyuan-DiT": Network(
        make=hunyuan,
        sizes={name: values for name, values in PICTURE.items() if name != "tokens"},
        call=hunyuan_call,
        dims={**PICTURE_DIMS, **HUNYUAN_DIMS},
        moments=MOMENTS,
    ),
    "AuraFlow": on_pictures(
        made(
            "AuraFlowTransformer2DModel",
            **{"sample_size": 16, "patch_size": 2, "in_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1},
            **{"caption_projection_dim": 32, "joint_attention_dim": WIDTH, "pos_embed_max_size": 256, **HEADS},
        ),
        even_picture(),
        EVEN_DIMS,
        anew="its table of places is too small to find sums with them",
    ),
    "Qwen-Image": Network(
        make=qwen_image,
        sizes={"batch": (2, 3), "tokens": (7, 12), "height": (4, 6)},
        call=qwen_image_call,
        dims={
            "hidden_states": ("batch", "4*height", None),
            "encoder_hidden_states_mask": ("batch", "tokens"),
            "timestep": ("batch",),
            **PROMPT_DIMS,
        },
        moments=MOMENTS,
        anew="the call gives the size as numbers (`img_shapes`)",
    ),
    "Z-Image": Network(
        make=made(
            "ZImageTransformer2DModel",
            **{"in_channels": 4, "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2},
            **{"cap_feat_dim": WIDTH, "axes_dims": [8, 4, 4], "axes_lens": [256, 32, 32]},
        ),
        sizes={"batch": (2, 3), "height": (4, 6), "tokens": (7, 12)},
        call=z_image_call,
        dims={},
        moments={"x": "latent", "t": "time", "cap_feats": "prompt"},
        anew="the batch is a list, and tokens are filled up to a multiple of 32",
    ),
    "Lumina2": on_pictures(
        made(
            "Lumina2Transformer2DModel",
            **{"sample_size": 16, "in_channels": 4, "hidden_size": 24, "num_layers": 2, "num_refiner_layers": 1},
            **{"num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 2, "cap_feat_dim": WIDTH},
            **{"axes_dim_rope": (4, 2, 2), "axes_lens": (128, 128, 128)},
        ),
        picture(encoder_attention_mask=mask),
        MASK_DIMS,
        anew="it reads the mask of the prompt in Python, so that it cannot be compiled",
    ),
    "Sana": on_pictures(
        made(
            "SanaTransformer2DModel",
            **{"in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4},
            **{"num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8},
            **{"caption_channels": WIDTH, "sample_size": 32},
        ),
        picture(encoder_attention_mask=mask),
        MASK_DIMS,
    ),
    "DiT": Network(
        make=made(
            "DiTTransformer2DModel",
            **{"sample_size": 8, "num_layers": 2, "in_channels": 4, "out_channels": 8, **HEADS},
        ),
        sizes={"batch": (2, 3), "side": (4, 6)},
        call=class_call,
        dims={
            "hidden_states": ("batch", None, "2*side", "2*side"),
            "timestep": ("batch",),
            "class_labels": ("batch",),
        },
        moments={"hidden_states": "latent", "timestep": "time", "class_labels": "prompt"},
        anew=SCALED,
    ),
}
