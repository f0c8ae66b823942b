"""The forms of A1111's answers: errors, pictures with their `info`, and plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from api.dialect import as_json
from api.errors import Refusal
from api.fields import Fields
from api.pictures import as_base64
from modules.generation.options import GenerationOptions
from modules.images.metadata import parse_parameters
from modules.images.save import read_parameters
from modules.tasks.queued_task import QueuedTask
from modules.version import VERSION

NOT_ECHOED = ("init_images", "mask", "alwayson_scripts")  # they hold pictures


def refuse(refusal: Refusal) -> Response:
    """A1111's clients show `detail`, and some of them `errors`."""
    told = {"error": "HTTPException", "detail": refusal.sentence, "body": "", "errors": refusal.sentence}
    return as_json(told, refusal.status)


def made(queued: QueuedTask, options: GenerationOptions, asked: Fields) -> dict[str, Any]:
    """Answers txt2img and img2img: PNGs in base64, the request, and `info`, which is JSON inside a string."""
    send = asked.flag("send_images", default=True)
    return {
        "images": [as_base64(path) for path in queued.pictures] if send else [],
        "parameters": {name: value for name, value in asked.values.items() if name not in NOT_ECHOED},
        "info": json.dumps(info(queued, options)),
    }


def info(queued: QueuedTask, options: GenerationOptions) -> dict[str, Any]:
    """Describes the pictures as A1111 does. A task that was stopped has fewer than it was asked for."""
    texts = [read_parameters(path) for path in queued.pictures]
    prompts, negatives, fields = zip(*map(parse_parameters, texts), strict=True) if texts else ((), (), ())
    seeds = [int(each["Seed"]) for each in fields]
    first: Mapping[str, str] = fields[0] if fields else {}
    return {
        "prompt": prompts[0] if prompts else options.prompt,
        "all_prompts": prompts,
        "negative_prompt": negatives[0] if negatives else options.negative_prompt,
        "all_negative_prompts": negatives,
        "seed": seeds[0] if seeds else -1,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1 for _ in seeds],
        "subseed_strength": 0,
        "width": options.width,
        "height": options.height,
        "sampler_name": first.get("Sampler", options.sampler),
        "cfg_scale": options.cfg,
        "steps": options.steps,
        "batch_size": options.batch,
        "restore_faces": False,
        "sd_model_name": first.get("Model"),
        "sd_model_hash": first.get("Model hash"),
        "sd_vae_name": options.vae,
        "denoising_strength": options.denoise,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": options.styles,
        "clip_skip": options.clip_skip,
        "version": f"LightDiffusion-Next {VERSION}",
    }
