"""Fooocus: the settings it writes, and a note about its own styles."""

from __future__ import annotations

import json

from modules.generation.metadata.recall import recall_texts
from modules.generation.options import LoraChoice


def test_fooocus() -> None:
    values = {
        "prompt": "a cat",
        "negative_prompt": "dog",
        "styles": "['Fooocus V2']",
        "steps": 30,
        "resolution": "(1152, 896)",
        "guidance_scale": 4.0,
        "base_model": "big.safetensors",
        "refiner_model": "None",
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "vae": "Default (model)",
        "seed": "123",
        "clip_skip": 2,
        "lora_combined_1": "offset.safetensors : 0.1",
    }
    recalled = recall_texts({"parameters": json.dumps(values), "fooocus_scheme": "fooocus"})
    options = recalled.options
    assert (options.width, options.height, options.seed, options.cfg) == (1152, 896, 123, 4.0)
    assert (options.sampler, options.scheduler, options.vae) == ("dpmpp_2m_sde", "karras", None)
    assert options.loras == (LoraChoice(name="offset.safetensors", strength=0.1),)
    assert recalled.left_out == "styles"
