"""Tiny networks of transformers: text and image encoders, and language models with a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from transformers.cache_utils import DynamicCache

from tests.stable_fast.families.trial import Network, Sizes
from tests.stable_fast.pipelines.tiny_pipelines import SIZE, WIDTH, randomised, text_encoder
from tests.stable_fast.pipelines.tiny_tail import image_encoder, t5_encoder

WORDS = 1000
TEXT = {"batch": (2, 3), "tokens": (7, 12)}
PICTURE = {"batch": (2, 3), "height": (4, 6), "width": (4, 3)}  # in patches of 8 pixels
PIXELS = ("batch", None, "8*height", "8*width")
BODY: Mapping[str, Any] = {
    **{"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
}
STAGES: Mapping[str, Any] = {"hidden_sizes": [16, 32], "depths": [1, 1]}
VISION: Mapping[str, Any] = {**BODY, "image_size": SIZE, "patch_size": 8}


def made(model: str, config: str, **settings: Any) -> Callable[[], Any]:
    """Makes a model from its configuration; both are classes of transformers."""

    def make() -> Any:
        torch.manual_seed(3)
        return randomised(getattr(transformers, model)(getattr(transformers, config)(**settings)))

    return make


def words(at: Sizes) -> dict[str, Any]:
    """Texts that end with CLIP's last word, and a mask of all ones as pipelines give it."""
    ids = torch.randint(1, WORDS, (at["batch"], at["tokens"]))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def clip_words(at: Sizes) -> dict[str, Any]:
    ids = words(at)["input_ids"]
    ids[:, -1] = 49407
    return {"input_ids": ids}


def text(make: Callable[[], Any], call: Callable[[Sizes], dict[str, Any]] = words, **more: Any) -> Network:
    names = ("input_ids", "attention_mask") if call is words else ("input_ids",)
    return Network(make=make, sizes=TEXT, call=call, dims=dict.fromkeys(names, ("batch", "tokens")), **more)


def pictures(make: Callable[[], Any], **more: Any) -> Network:
    """An image encoder; `interpolates`: it takes other sizes than its own only if it is asked to."""
    flags = {"interpolate_pos_encoding": True} if more.pop("interpolates", False) else {}
    return Network(
        make=make,
        sizes=PICTURE,
        call=lambda at: {"pixel_values": torch.randn(at["batch"], 3, 8 * at["height"], 8 * at["width"]), **flags},
        dims={"pixel_values": PIXELS},
        **more,
    )


LANGUAGE: Mapping[str, Any] = {**BODY, "num_key_value_heads": 2, "vocab_size": WORDS}
CACHED = {"batch": (2, 3), "past": (5, 9)}


def decode(at: Sizes) -> dict[str, Any]:
    """One word after `past` others, whose keys and values are in a cache."""
    cache = DynamicCache()
    for layer in range(LANGUAGE["num_hidden_layers"]):
        shape = (at["batch"], 2, at["past"], 8)
        cache.update(torch.randn(shape), torch.randn(shape), layer)
    return {
        "input_ids": torch.randint(1, WORDS, (at["batch"], 1)),
        "past_key_values": cache,
        "use_cache": True,
    }


def decoding(make: Callable[[], Any]) -> Network:
    part = ("batch", None, "past", None)
    layers = {f"past_key_values_layers_{n}_{kind}": part for n in range(2) for kind in ("keys", "values")}
    return Network(make=make, sizes=CACHED, call=decode, dims={"input_ids": ("batch", None), **layers})


llama = made("LlamaForCausalLM", "LlamaConfig", **LANGUAGE)
qwen3 = made("Qwen3ForCausalLM", "Qwen3Config", **LANGUAGE, head_dim=8)

NETWORKS: Mapping[str, Network] = {
    "CLIPTextModel": text(text_encoder, clip_words),
    "CLIPTextModelWithProjection": text(lambda: text_encoder(projection=True), clip_words),
    "T5 encoder": text(t5_encoder),
    "BERT": text(made("BertModel", "BertConfig", **BODY, vocab_size=WORDS)),
    "CLIPVisionModel": pictures(image_encoder, interpolates=True),
    "ViT": pictures(made("ViTModel", "ViTConfig", **VISION), interpolates=True),
    "SigLIP": pictures(made("SiglipVisionModel", "SiglipVisionConfig", **VISION), interpolates=True),
    "DINOv2": pictures(made("Dinov2Model", "Dinov2Config", **VISION)),
    "ConvNeXt": pictures(made("ConvNextModel", "ConvNextConfig", num_stages=2, **STAGES)),
    "ResNet": pictures(made("ResNetModel", "ResNetConfig", embedding_size=16, layer_type="basic", **STAGES)),
    "Llama, prefill": text(llama),
    "Llama, decode with cache": decoding(llama),
    "Qwen3, prefill": text(qwen3),
    "Qwen3, decode with cache": decoding(qwen3),
}
