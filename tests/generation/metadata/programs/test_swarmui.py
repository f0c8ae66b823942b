"""SwarmUI: settings, the refiner as HiresFix, and the missing initial picture."""

from __future__ import annotations

import json

from modules.generation.metadata.recall import recall_texts
from modules.generation.options import HiresOptions, LoraChoice


def test_swarmui() -> None:
    values = {
        "prompt": "a cat",
        "negativeprompt": "dog",
        "model": "sd/v15",
        **{"seed": 5, "steps": 20, "cfgscale": 7.0, "width": 512, "height": 448},
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "loras": ["ink"],
        "loraweights": ["0.5"],
        "refinerupscale": 1.5,
        "refinercontrolpercentage": 0.3,
        "variationseed": 7,
    }
    recalled = recall_texts({"parameters": json.dumps({"sui_image_params": values})})
    options = recalled.options
    assert (options.prompt, options.checkpoint, options.height) == ("a cat", "sd/v15", 448)
    assert options.loras == (LoraChoice(name="ink", strength=0.5),)
    assert options.hires == HiresOptions(scale=1.5, denoise=0.3) and recalled.left_out == "variationseed"
    pixels = {**values, "refinerupscalemethod": "pixel-bicubic"}
    told = recall_texts({"parameters": json.dumps({"sui_image_params": pixels})})
    assert told.options.hires == HiresOptions(scale=1.5, denoise=0.3) and "pixel-bicubic" in told.left_out
    started = {**values, "refinerupscale": 1, "initimagecreativity": 0.4}
    assert recall_texts({"parameters": json.dumps({"sui_image_params": started})}).lacks
