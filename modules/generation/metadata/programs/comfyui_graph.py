"""Reads the nodes of a ComfyUI graph from a picture's texts: the executed `prompt`, or the `workflow` of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modules.generation.metadata.recipe import json_object
from modules.images.metadata import PNG_KEY

MOST_HOPS = 64
VALUE_INPUTS = ("value", "text", "string", "prompt", "int", "float", "seed", "noise_seed")  # inputs of constant nodes
# ComfyUI writes NaN, which is not valid JSON.
_NOT_A_NUMBER = re.compile(r'("is_changed":\s*)(?:\[\s*)?NaN(?:\s*\])?')
# The order of a node's fields on the page; None is a field not in the graph ("control after generate").
WIDGETS: dict[str, tuple[str | None, ...]] = {
    "KSampler": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", None, "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "CLIPTextEncode": ("text",),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "VAELoader": ("vae_name",),
    "LoadImage": ("image",),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
}


@dataclass(frozen=True)
class Node:
    """A node; `inputs` contains plain values, and links as [node, output]."""

    key: str
    kind: str = field(compare=False)
    inputs: Mapping[str, Any] = field(compare=False, repr=False)
    graph: Graph = field(compare=False, repr=False)

    def link(self, name: str) -> Node | None:
        """Returns the node linked to an input."""
        value = self.inputs.get(name)
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)):
            return self.graph.node(str(value[0]))
        return None

    def value(self, name: str) -> Any:
        """Returns an input's plain value, even from a linked constant node; None if the value is computed."""
        node: Node | None = self
        for _ in range(MOST_HOPS):
            if node is None:
                return None
            value = node.inputs.get(name)
            if not isinstance(value, (list, dict)):
                return value
            node = node.link(name)
            inputs = {} if node is None else node.inputs
            name = next((other for other in (name, *VALUE_INPUTS) if other in inputs), "")
        return None

    def chain(self, *names: str) -> Iterator[Node]:
        """Yields the nodes upstream of this one, nearest first. At each node, it follows the first linked input."""
        node: Node | None = self
        for _ in range(MOST_HOPS):
            node = next((before for name in names if (before := node.link(name))), None)
            if node is None:
                return
            yield node


class Graph:
    def __init__(self, table: Mapping[str, Any]) -> None:
        self._nodes: dict[str, Node] = {}
        for key, entry in table.items():
            if isinstance(entry, dict) and isinstance(entry.get("class_type"), str):
                inputs = entry.get("inputs")
                self._nodes[key] = Node(key, entry["class_type"], inputs if isinstance(inputs, dict) else {}, self)

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def node(self, key: str) -> Node | None:
        return self._nodes.get(key)

    def nodes(self) -> list[Node]:
        return list(self._nodes.values())


def graph_of(texts: Mapping[str, str]) -> Graph | None:
    """Reads the graph; returns None if the texts contain no ComfyUI graph."""
    for name in ("prompt", PNG_KEY):
        table = json_object(_NOT_A_NUMBER.sub(r"\1null", texts.get(name, "")))
        if table and (graph := Graph(table)):
            return graph
    workflow = json_object(texts.get("workflow"))
    return None if workflow is None else Graph(_table_of(workflow)) or None


def _table_of(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the page's nodes to an executable graph, using the fields that are known."""
    links = {link[0]: link[1] for link in _entries(workflow.get("links"), list) if len(link) > 2 and _is_id(link[0])}
    table: dict[str, Any] = {}
    for node in _entries(workflow.get("nodes"), dict):
        kind, widgets = node.get("type"), node.get("widgets_values")
        names = WIDGETS.get(kind, ()) if isinstance(kind, str) else ()
        values = zip(names, widgets if isinstance(widgets, list) else (), strict=False)
        inputs: dict[str, Any] = {name: value for name, value in values if name is not None}
        for entry in _entries(node.get("inputs"), dict):
            if _is_id(entry.get("link")) and entry["link"] in links:
                inputs[str(entry.get("name"))] = [links[entry["link"]], 0]
        table[str(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return table


def _entries(value: object, kind: type) -> list[Any]:
    return [entry for entry in value if isinstance(entry, kind)] if isinstance(value, list) else []


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str))
