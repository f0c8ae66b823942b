"""A simple graph as ComfyUI writes it into a picture, and its nodes."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**changes: dict[str, Any]) -> Graph:
    sampling = {"seed": 5, "steps": 12, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    links = {"model": ["lora", 0], "positive": ["yes", 0], "negative": ["no", 0], "latent_image": ["empty", 0]}
    nodes = {
        "file": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
        "lora": node("LoraLoader", lora_name="ink", strength_model=0.8, strength_clip=0.5, model=["file", 0]),
        "empty": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "skip": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["lora", 1]),
        "yes": node("CLIPTextEncode", text="a cat", clip=["skip", 0]),
        "no": node("CLIPTextEncode", text="dog", clip=["skip", 0]),
        "sampler": node("KSampler", **sampling, **links),
        "vae": node("VAELoader", vae_name="mse.safetensors"),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
    }
    return nodes | changes
