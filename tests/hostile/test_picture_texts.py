"""Randomly changed picture texts: each quickly becomes a request or one sentence."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.metadata.recall import recall_texts

A1111 = (
    "a (cat:1.2)\nNegative prompt: dog\n"
    "Steps: 4, Sampler: DPM++ 2M Karras, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 128x128, Model: x, "
    'VAE: y, Clip skip: 2, Hires resize: 256x0, Hires upscaler: Latent, Hires sampler: "Heun", '
    'Denoising strength: 0.5, Hires fix: {"scale": 1.5, "denoise": 0.5, "method": "x"}, LoRA 0: {"name": "a"}, '
    'Init image: {"image": "/dev/zero", "mask": "m.png"}, ControlNet 0: {"name": "c", "image": "i.png", "end": 0.5}'
)
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "cat", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            **{"seed": 5, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0},
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]},
        },
    },
}
SWARM = {"sui_image_params": {"prompt": "a", "seed": 1, "steps": 2, "width": 64, "height": 64, "loras": ["x"]}}
FOOOCUS = {"prompt": "a", "base_model": "x", "styles": "[]", "resolution": "(64, 64)", "lora_combined_1": "a : 0.5"}
INVOKE = {"positive_prompt": "a", "scheduler": "euler_k", "steps": 3, "model": {"name": "x"}, "loras": [{"weight": 1}]}
NOVELAI = {"prompt": "a", "steps": 3, "sampler": "k_euler", "scale": 5, "uc": "b", "width": 64, "height": 64}
JSON_TEXTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("prompt", GRAPH),
    ("workflow", {"nodes": [{"id": 1, "type": "KSampler", "widgets_values": [1, 2, 3]}], "links": [[1, 1, 0, 1, 0]]}),
    ("parameters", SWARM),
    ("parameters", FOOOCUS),
    ("parameters", {"extraMetadata": json.dumps(NOVELAI), **GRAPH}),
    ("invokeai_metadata", INVOKE),
    ("sd-metadata", {"image": {"prompt": [{"prompt": "a"}], "sampler": "k_lms", "steps": 4}}),
    ("Comment", NOVELAI),
)
VALUES = (
    *(None, True, False, 0, -1, 1.5, 10**400, -(10**30), 1e308, "", "x", "\0", "~nosuch/x", "/dev/zero", "a" * 5000),
    *([], {}, [[[]]], ["4", 0], {"a": {"b": []}}, "nan", "9" * 400, "64x64x64", "{", '{"scale": true}', "\ud800"),
)
PIECES = (
    "true",
    "9" * 400,
    "[" * 200,
    "{",
    "}",
    '"',
    "\\",
    ",",
    ":",
    "\n",
    "\0",
    "nan",
    "-1",
    "é",
    "/dev/zero",
    "1e999",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return ModelFolders(tmp_path_factory.mktemp("empty"))


def changed_text(source: random.Random, text: str) -> str:
    for _ in range(source.randrange(1, 5)):
        start = source.randrange(len(text) + 1)
        end = start + source.choice((0, 1, 3, 20))
        text = text[:start] + source.choice((*PIECES, text[end : end + 30])) + text[end:]
    return text


def changed_value(source: random.Random, value: Any) -> Any:
    """Returns the same structure with one part replaced, dropped or put in a list."""
    if isinstance(value, (dict, list)) and value and source.random() < 0.85:
        copy = value.copy()
        keys = list(copy) if isinstance(copy, dict) else list(range(len(copy)))
        key = source.choice(keys)
        if source.random() < 0.1:
            del copy[key]
        else:
            copy[key] = changed_value(source, copy[key])
        return copy
    return source.choice((*VALUES, [value]))


def hostile_texts() -> Iterator[dict[str, str]]:
    source = random.Random(20261128)
    for _ in range(2500):
        yield {"parameters": changed_text(source, A1111)}
    for number in range(4000):
        name, value = JSON_TEXTS[number % len(JSON_TEXTS)]
        for _ in range(source.randrange(1, 4)):
            value = changed_value(source, value)
        text = json.dumps(value)
        yield {name: changed_text(source, text) if number % 5 == 0 else text, "Software": "NovelAI"}


def test_changed_texts_become_a_request_or_a_sentence(folders: ModelFolders) -> None:
    requests = sentences = 0
    for texts in hostile_texts():
        try:
            recall_texts(texts, folders=folders)
            requests += 1
        except LightDiffusionError as error:
            sentences += 1
            assert "\n" not in str(error) and len(str(error)) < 1000
    assert requests > 200 and sentences > 200


@pytest.mark.parametrize(
    "text",
    [
        "x\n" + "Steps: 1, Sampler: a, Seed: [" * 20_000,
        "x\nSteps: 1, Sampler: Euler, Seed: 5, " + 'a: "\\", ' * 50_000,
        "Steps: 1, " + " " * 300_000,
        "\n".join(["Steps: 1"] * 100_000),
        "Negative prompt:" * 50_000,
        '{"a":' * 100_000,
        "x\nSteps: 1, Sampler: Euler, Seed: 5, LoRA 0: " + '{"name":' * 50_000,
        json.dumps({str(i): {"class_type": "KSampler", "inputs": {"latent_image": ["0", 0]}} for i in range(15_000)}),
    ],
    ids=range(8),
)
def test_long_texts_are_answered_at_once(text: str, folders: ModelFolders) -> None:
    began = time.perf_counter()
    with suppress(OptionsError):
        recall_texts({"parameters": text, "prompt": text}, folders=folders)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    "packed",
    [
        '{"denoise":true,"scale":1.0}',
        '{"method":5}',
        '{"sampler":5}',
        '{"keep_first_pass":"no","scale":1}',
        '{"width":64.0,"height":64.0}',
        '{"scale":1e999}',
        '{"steps":' + "9" * 400 + "}",
        '{"nosuch":1}',
        "{" * 2000,
    ],
)
def test_a_packed_choice_has_the_types_of_ours(packed: str) -> None:
    text = f"a\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Hires fix: {json.dumps(packed)}"
    with pytest.raises(OptionsError):
        recall_texts({"parameters": text})


def test_entries_without_end_are_refused() -> None:
    text = "a\nSteps: 1, Sampler: Euler, Seed: 1, " + ", ".join(f'LoRA {i}: {{"name": "x"}}' for i in range(2000))
    with pytest.raises(OptionsError, match="more than 64"):
        recall_texts({"parameters": text})


def test_a_device_is_refused_as_checkpoint_path(tmp_path: Path) -> None:
    text = "a\nSteps: 1, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Model path: /dev/zero"
    assert recall_texts({"parameters": text}, folders=ModelFolders(tmp_path)).options.checkpoint == "zero"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompt", '"is_changed":' + " " * 100_000),
        ("Dream", f'"{"[" * 100_000}" -s 5'),
        ("sd-metadata", json.dumps({"image": {"prompt": "[" * 100_000, "sampler": "k_lms"}})),
    ],
)
def test_patterns_take_no_longer_than_their_texts(name: str, text: str) -> None:
    began = time.process_time()
    with suppress(LightDiffusionError):
        recall_texts({name: text})
    assert time.process_time() - began < 20.0, "they take 0.2 s; patterns of quadratic time took minutes"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"5": {"class_type": "ImageUpscaleWithModel", "inputs": {"image": ["4", 0]}}}, "ImageUpscaleWithModel"),
        ({"4": {**GRAPH["4"], "inputs": {**GRAPH["4"]["inputs"], "add_noise": "disable"}}}, "add_noise"),
        (
            {
                "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "cat", "clip": ["5", 1]}},
                "5": {"class_type": "LoraLoader", "inputs": {"lora_name": "x", "clip": ["1", 1], "model": ["1", 0]}},
            },
            "LoraLoader for the text alone",
        ),
    ],
)
def test_what_a_graph_of_comfyui_does_beside_its_sampler_is_told(changed: dict[str, Any], told: str) -> None:
    assert told in recall_texts({"prompt": json.dumps(GRAPH | changed)}).left_out
    assert told not in recall_texts({"prompt": json.dumps(GRAPH)}).left_out
