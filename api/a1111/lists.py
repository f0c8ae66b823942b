"""A1111's lists: models by name, never by path, samplers, schedulers, styles, and what there is none of."""

from __future__ import annotations

from typing import Any

from api.desk import Desk
from modules.catalog.styles import read_styles
from modules.controlnet.names import PREPROCESSORS
from modules.generation.metadata.hires import METHODS
from modules.images.methods import LATENT_METHODS
from modules.sampling.names import SAMPLER_LABELS, SCHEDULER_LABELS

Rows = list[dict[str, Any]]
# webuiapi looks for the second one; without it, it sends the units of an earlier request again.
SCRIPTS = ["controlnet", "controlnet m2m"]
CONTROLNET_VERSION = 2  # of the extension's API


def stem(name: str) -> str:
    """Returns a model's name without its ending, as A1111's prompts and clients write it."""
    return name.rpartition(".")[0] or name


def checkpoints(desk: Desk) -> Rows:
    return [
        {"title": name, "model_name": stem(name), "hash": None, "sha256": None, "filename": name, "config": None}
        for name in desk.folders.list("checkpoints")
    ]


def vaes(desk: Desk) -> Rows:
    return [{"model_name": name, "filename": name} for name in desk.folders.list("vae")]


def loras(desk: Desk) -> Rows:
    names = desk.folders.list("loras")
    return [{"name": stem(name), "alias": stem(name), "path": name, "metadata": {}} for name in names]


def embeddings(desk: Desk) -> dict[str, Any]:
    unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": None, "vectors": None}
    return {"loaded": {stem(name): unknown for name in desk.folders.list("embeddings")}, "skipped": {}}


def samplers(desk: Desk) -> Rows:
    return [{"name": label, "aliases": [name], "options": {}} for name, label in SAMPLER_LABELS.items()]


def schedulers(desk: Desk) -> Rows:
    labels = {"automatic": "Automatic", **SCHEDULER_LABELS}
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1, "need_inner_model": False}
        for name, label in labels.items()
    ]


def upscalers(desk: Desk) -> Rows:
    names = ["None", "Lanczos", *map(stem, desk.folders.list("upscalers"))]
    return [{"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4.0} for name in names]


def latent_upscale_modes(desk: Desk) -> Rows:
    return [{"name": title(name)} for name, method in METHODS.items() if is_a1111s(name) and method in LATENT_METHODS]


def title(name: str) -> str:
    return name[0].upper() + name[1:]


def is_a1111s(name: str) -> bool:
    return name == "latent" or name.startswith("latent (")


def styles(desk: Desk) -> Rows:
    return [
        {"name": style.name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
        for style in read_styles(desk.folders)
    ]


def scripts(desk: Desk) -> dict[str, list[str]]:
    return {"txt2img": SCRIPTS, "img2img": SCRIPTS}


def cmd_flags(desk: Desk) -> dict[str, Any]:
    return {"api": True}


def none_of_these(desk: Desk) -> Rows:
    return []


def memory(desk: Desk) -> dict[str, Any]:
    """Answers bytes, as A1111 does; ours are of this process, not of the whole computer."""
    from modules.core.device import memory_report  # imports torch

    session = desk.queue.session
    report = memory_report(session.device if session else None)
    ram = {"used": report.resident, "peak": report.resident_peak}
    if report.device_total is None:
        return {"ram": ram, "cuda": {"error": "no NVIDIA GPU is in use"}}
    used = {"current": report.device_allocated, "peak": report.device_peak}
    return {"ram": ram, "cuda": {"system": {"total": report.device_total}, "allocated": used}}


def controlnet_version(desk: Desk) -> dict[str, int]:
    return {"version": CONTROLNET_VERSION}


def controlnet_models(desk: Desk) -> dict[str, list[str]]:
    return {"model_list": [stem(name) for name in desk.folders.list("controlnet")]}


def controlnet_modules(desk: Desk) -> dict[str, Any]:
    return {"module_list": list(PREPROCESSORS), "module_detail": {}}
