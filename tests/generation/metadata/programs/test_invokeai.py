"""InvokeAI: its current format, and two earlier formats."""

from __future__ import annotations

import json

import pytest

from modules.generation.metadata.recall import recall_texts
from modules.generation.options import LoraChoice

INVOKE = {
    "generation_mode": "txt2img",
    "positive_prompt": "landscape",
    "negative_prompt": "low quality",
    "width": 768,
    "height": 432,
    "seed": 356120443,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0.7,
    "steps": 50,
    "scheduler": "dpmpp_2m_sde_k",
    "clip_skip": 1,
    "model": {"model_name": "mix", "base_model": "sd-1"},
    "loras": [{"lora": {"model_name": "ink"}, "weight": 0.7}],
    "vae": {"model_name": "mse"},
    "controlnets": [{"x": 1}],
}


def test_invokeai() -> None:
    recalled = recall_texts({"invokeai_metadata": json.dumps(INVOKE)})
    options = recalled.options
    assert (options.prompt, options.width, options.steps, options.seed) == ("landscape", 768, 50, 356120443)
    assert (options.sampler, options.scheduler, options.clip_skip) == ("dpmpp_2m_sde", "karras", 2)
    assert (options.cfg, options.rescale_cfg) == (7.5, 0.7)
    assert (options.checkpoint, options.vae, recalled.left_out) == ("mix", "mse", "ControlNets")
    assert options.loras == (LoraChoice(name="ink", strength=0.7),)
    changed = {**INVOKE, "generation_mode": "sd-1_img2img", "strength": 0.4}
    assert recall_texts({"invokeai_metadata": json.dumps(changed)}).lacks


@pytest.mark.parametrize(
    "texts",
    [
        {"Dream": '"a cat [dog]" -s 30 -S 123 -W 512 -H 448 -C 7.5 -A k_euler_a'},
        {
            "sd-metadata": json.dumps(
                {
                    "image": {
                        "prompt": [{"prompt": "a cat [dog]", "weight": 1.0}],
                        **{"steps": 30, "seed": 123, "width": 512, "height": 448, "cfg_scale": 7.5},
                        "sampler": "k_euler_a",
                        "type": "txt2img",
                    }
                }
            )
        },
    ],
)
def test_older_invokeai(texts: dict[str, str]) -> None:
    options = recall_texts(texts).options
    assert (options.prompt, options.negative_prompt, options.sampler) == ("a cat", "dog", "euler_ancestral")
    assert (options.steps, options.seed, options.width, options.height, options.cfg) == (30, 123, 512, 448, 7.5)
