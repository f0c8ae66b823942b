"""Reads ComfyUI's graph: follows it backwards from the sampler and takes plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import OptionsError
from modules.generation.metadata.programs.comfyui_graph import Graph, Node, graph_of
from modules.generation.metadata.recipe import COMFY_EMPHASIS, Recipe, as_fields, lora_fields, size_text

PROGRAM = "ComfyUI"
SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
LORAS = ("LoraLoader", "LoraLoaderModelOnly")
CHECKPOINTS = ("CheckpointLoaderSimple", "CheckpointLoader", "unCLIPCheckpointLoader")
EMPTY = ("EmptyLatentImage", "EmptySD3LatentImage")
UPSCALES = ("LatentUpscale", "LatentUpscaleBy")
# Nodes covered by the recipe's fields.
SAID = (*SAMPLERS, *LORAS, *CHECKPOINTS, *EMPTY, "CFGGuider", "Reroute", "VAEEncode", "LoadImage", "CLIPSetLastLayer")
# Prefixes of nodes that postprocess the picture.
AFTERWARDS = ("ImageUpscale", "ImageScale", "UltimateSDUpscale", "FaceDetailer", "FaceRestore")
LATENTS = ("latent_image", "samples", "pixels", "image")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt; `text` is None if it is computed.

    `way` lists the other nodes between sampler and text, and between text and checkpoint.
    """

    text: str | None
    way: list[Node]
    clip_skip: object


def read(texts: Mapping[str, str]) -> Recipe | None:
    """Reads the recipe. Raises OptionsError for a graph without a known sampler."""
    graph = graph_of(texts)
    if graph is None:
        return None
    samplers = [node for node in graph.nodes() if node.kind in SAMPLERS]
    first = next((node for node in samplers if _comes_first(node)), None)
    if first is None:
        raise OptionsError(
            "This picture was made by ComfyUI with a workflow that has no KSampler, so its settings cannot be read; "
            "enter them by hand."
        )
    return _recipe(first, samplers, graph)


def _comes_first(sampler: Node) -> bool:
    return all(node.kind not in SAMPLERS for node in sampler.chain(*LATENTS))


def _recipe(first: Node, samplers: list[Node], graph: Graph) -> Recipe:
    guided = first.link("guider") or first
    model, latent = list(guided.chain("model")), list(first.chain(*LATENTS))
    positive, negative = _prompt(guided, "positive"), _prompt(guided, "negative")
    second = _second_pass(first, samplers)
    sampling = _sampling(first)
    fields = sampling | _start(latent, first) | (_hires(second) if second else {})
    fields |= {"Model": _first(model, CHECKPOINTS, "ckpt_name"), "VAE": _vae(graph)}
    fields |= {"Clip skip": positive.clip_skip, "Emphasis": COMFY_EMPHASIS}
    left = [node.kind for node in samplers if node not in (first, second)]
    left += [node.kind for node in (*model, *latent, *positive.way, *negative.way) if node.kind not in SAID]
    left += [f"{name} (computed in the workflow)" for name, value in sampling.items() if value is None]
    left += [f"{node.kind} for the text alone" for node in positive.way if node.kind in LORAS and node not in model]
    left += [node.kind for node in graph.nodes() if node.kind.startswith(AFTERWARDS)]
    left += _partial_steps(first)
    if negative.text is None:
        left.append("the negative prompt")
    return Recipe(
        program=PROGRAM,
        prompt=positive.text,
        negative=negative.text or "",
        fields=as_fields(fields) | lora_fields(_loras(model)),
        left_out=tuple(dict.fromkeys(left)),
    )


def _sampling(node: Node) -> dict[str, Any]:
    """Returns the values of the sampler, or of the nodes that form a custom sampler."""
    parts = [node, *(part for name in ("sampler", "sigmas", "noise", "guider") if (part := node.link(name)))]

    def value(*names: str) -> object:
        return next((found for part in parts for name in names if (found := part.value(name)) is not None), None)

    return {
        "Steps": value("steps"),
        "Sampler": value("sampler_name"),
        "Schedule type": value("scheduler"),
        "CFG scale": value("cfg"),
        "Seed": value("seed", "noise_seed"),
    }


def _start(latent: list[Node], sampler: Node) -> dict[str, Any]:
    """Returns the size of an empty picture; any other start is image to image."""
    empty = next((node for node in latent if node.kind in EMPTY), None)
    denoise = (sampler.link("sigmas") or sampler).value("denoise")
    if empty is None:
        return {"Init image": _first(latent, ("LoadImage",), "image") or PROGRAM, "Denoising strength": denoise}
    start: dict[str, Any] = {"Size": size_text(empty.value("width"), empty.value("height"))}
    if empty.value("batch_size") not in (None, 1):
        start["batch_size of the latents"] = empty.value("batch_size")
    return start | ({} if denoise in (None, 1, 1.0) else {"denoise of an empty picture": denoise})


def _partial_steps(node: Node) -> list[str]:
    start, end, steps = (node.value(name) for name in ("start_at_step", "end_at_step", "steps"))
    partial = isinstance(start, int) and start > 0
    if isinstance(end, int) and isinstance(steps, int):
        partial = partial or end < steps
    told = ["start_at_step and end_at_step"] if partial else []
    return [*told, "add_noise, which is off"] if node.value("add_noise") == "disable" else told


def _second_pass(first: Node, samplers: list[Node]) -> Node | None:
    """Finds the only sampler that starts from the enlarged latents of `first`."""
    after = [node for node in samplers if node is not first and first in node.chain("latent_image", "samples")]
    if len(after) != 1 or not any(node.kind in UPSCALES for node in after[0].chain("latent_image", "samples")):
        return None
    return after[0]


def _hires(second: Node) -> dict[str, Any]:
    enlarge = next(node for node in second.chain("latent_image", "samples") if node.kind in UPSCALES)
    sampling = _sampling(second)
    return {
        "Hires upscale": enlarge.value("scale_by"),
        "Hires resize": size_text(enlarge.value("width"), enlarge.value("height")),
        "Hires upscaler": enlarge.value("upscale_method"),
        "Hires steps": sampling["Steps"],
        "Hires CFG Scale": sampling["CFG scale"],
        "Hires sampler": sampling["Sampler"],
        "Hires schedule type": sampling["Schedule type"],
        "Hires strength": second.value("denoise"),
    }


def _prompt(sampler: Node, name: str) -> Prompt:
    way = list(sampler.chain(name, "conditioning", "conditioning_1", "conditioning_to"))
    encoder = next((node for node in way if node.kind.startswith("CLIPTextEncode")), None)
    if encoder is None:
        return Prompt(text=None, way=way, clip_skip=None)
    text = next((found for key in ("text", "text_g") if (found := encoder.value(key)) is not None), None)
    clip = list(encoder.chain("clip"))
    skip = _first(clip, ("CLIPSetLastLayer",), "stop_at_clip_layer")
    return Prompt(
        text=text if isinstance(text, str) else None,
        way=[*way[: way.index(encoder)], *clip],
        clip_skip=-skip if isinstance(skip, int) and not isinstance(skip, bool) else skip,
    )


def _first(nodes: list[Node], kinds: tuple[str, ...], name: str) -> Any:
    return next((node.value(name) for node in nodes if node.kind in kinds), None)


def _vae(graph: Graph) -> object:
    decoders = [node for node in graph.nodes() if node.kind.startswith("VAEDecode")]
    return next((_first(list(node.chain("vae")), ("VAELoader",), "vae_name") for node in decoders), None)


def _loras(model: list[Node]) -> Iterator[tuple[object, ...]]:
    """Yields the LoRAs in the order in which they are applied; `model` lists them in reverse."""
    for node in reversed(model):
        if node.kind in LORAS:
            text = 0.0 if node.kind == "LoraLoaderModelOnly" else node.value("strength_clip")
            yield node.value("lora_name"), node.value("strength_model"), text
