"""NovelAI: the comment it writes, and a note about its braces."""

from __future__ import annotations

import json

from modules.generation.metadata.recall import recall_texts


def test_novelai() -> None:
    values = {"steps": 28, "sampler": "k_dpmpp_2m", "seed": 42, "scale": 11.0, "uc": "bad", "width": 512, "height": 768}
    texts = {"Software": "NovelAI", "Description": "{girl}, cat", "Source": "Stable Diffusion F1", "Title": "x"}
    recalled = recall_texts({**texts, "Comment": json.dumps(values | {"noise_schedule": "exponential"})})
    options = recalled.options
    assert (options.prompt, options.negative_prompt, options.seed, options.cfg) == ("{girl}, cat", "bad", 42, 11.0)
    assert (options.sampler, options.scheduler, options.width) == ("dpmpp_2m", "exponential", 512)
    assert "Stable Diffusion F1" in recalled.left_out and "braces" in recalled.left_out
