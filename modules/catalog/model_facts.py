"""Tells from a header what a model file is for: its family, its prediction and the words that call it (no torch)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from modules.catalog.headers import SDXL_MARKS, metadata_in, our_facts, read_header, read_json_object, shapes_in
from modules.core.errors import printable
from modules.core.families import CONTEXT_FAMILIES, FAMILY_MARKS, has_mark
from modules.core.typed import Unreadable, parse_json_object

LONGEST_WORD = 200  # characters
MOST_WORDS = 12
MOST_TAGS = 6
LARGEST_TAG_TABLE = 4_000_000  # characters
INPAINT_CHANNELS = 9
# How trainers and model pages spell the families; the first pattern that is found counts.
_SPELLINGS = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        ("refiner", "the SDXL refiner"),
        ("xl|pony|illustrious|noobai", "SDXL"),
        ("flux", "Flux"),
        (r"(sd|diffusion)[ _-]?v?3", "SD3"),
        (r"(sd|diffusion)[ _-]?v?2", "SD2.x"),
        (r"(sd|diffusion)[ _-]?v?1", "SD1.x"),
    )
)
_NO_FAMILY = ("unknown", "other")
LONGEST_FAMILY = 40  # characters
_STATED_IN = ("ss_base_model_version", "modelspec.architecture")
_PREDICTION_IN = ("modelspec.prediction_type", "modelspec.predict_key")
_PREDICTIONS = {"v": "v-prediction", "edm": "EDM", "edm_v": "EDM v-prediction"}
# The matrices that read the text: those of cross-attention, or of the text encoder's own attention. A LoRA's first
# matrix has the width as its second size, like the matrix itself.
_FIRST = r"(?:\.weight|[._](?:lora[._])?down\.weight|\.lora_A(?:\.\w+)?(?:\.weight)?|\.hada_w1_b|\.lora_down\.weight)$"
_READS_TEXT = re.compile(rf"attn2[._](?:processor[._])?to_[kv](?:_lora)?{_FIRST}")
_READS_WORDS = re.compile(rf"self_attn[._][qk]_proj{_FIRST}")
_ANY_NAME = re.compile("")
_PROJECTION = re.compile(r"attentions?[._]\d+[._]proj_in[._]|_blocks[._]\d+[._]1[._]proj_in[._]")
_FIRST_CONVOLUTION = re.compile(r"^(?:model\.|unet\.)?(?:diffusion_model\.)?(?:input_blocks\.0\.0|conv_in)\.weight$")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a header tells. `width` is that of the text input to cross-attention (768 for SD1.x), None if unknown.

    `details` are things to know, in words ("v-prediction"); `words` call what the file was trained on.
    """

    family: str = ""
    width: int | None = None
    details: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def model_facts(path: Path, kind: str) -> ModelFacts:
    """Reads the facts of a file of this kind; a damaged file is reported when it is loaded."""
    header = read_header(path)
    if not header and path.suffix == ".safetensors":
        return ModelFacts(details=("damaged",))
    metadata = metadata_in(header)
    width = _embedding_width(header) if kind == "embeddings" else _width(header)
    details = _checkpoint_details(path, header) if kind == "checkpoints" else ()
    family = stated_family(*(metadata.get(name) for name in _STATED_IN))
    family = family or _shown_family(header, width)
    return ModelFacts(family=family, width=width, details=details, words=trigger_words(metadata))


def stated_family(*texts: object) -> str:
    """Returns the family that the first of these texts names; an unknown one in its own words, none as ""."""
    stated = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    known = next((family for pattern, family in _SPELLINGS if pattern.search(stated.lower())), None)
    return known or ("" if stated.lower() in _NO_FAMILY else short(stated)[:LONGEST_FAMILY])


def trigger_words(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the phrase that the header names, or else the most frequent tags of the training pictures."""
    phrase = metadata.get("modelspec.trigger_phrase")
    if isinstance(phrase, str) and phrase.strip():
        return unlike([phrase])
    text = metadata.get("ss_tag_frequency")
    try:
        folders = parse_json_object(text) if isinstance(text, str) and len(text) <= LARGEST_TAG_TABLE else {}
    except Unreadable:
        return ()
    counts: Counter[str] = Counter()
    for tags in folders.values():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if type(count) is int and count > 0:
                counts[tag] += count
    return unlike(tag for tag, _ in counts.most_common(MOST_TAGS))


def unlike(words: Iterable[str]) -> tuple[str, ...]:
    """Returns the words on one line each and shortened, without empty and equal ones."""
    shown = (short(word) for word in words)
    return tuple(dict.fromkeys(word for word in shown if word))[:MOST_WORDS]


def short(text: str) -> str:
    return printable(text[:LONGEST_WORD]).strip(" ,")


def _width(header: Mapping[str, Any]) -> int | None:
    config = header.get("cross_attention_dim")  # of a diffusers folder
    if type(config) is int:
        return config
    shapes = chain(shapes_in(header, _READS_TEXT), shapes_in(header, _READS_WORDS))
    return next((shape[1] for shape in shapes if len(shape) >= 2), None)


def _embedding_width(header: Mapping[str, Any]) -> int | None:
    """Adds the widths of an embedding's tensors: SDXL's has one for each text encoder."""
    widths = [shape[-1] for shape in shapes_in(header, _ANY_NAME) if 1 <= len(shape) <= 2]
    return sum(widths) if 1 <= len(widths) <= 2 else None


def _shown_family(header: Mapping[str, Any], width: int | None) -> str:
    """Tells the family by names, by the width, and for small models by the projections around attention."""
    if header.get("addition_embed_type") == "text_time" or any(name.endswith(SDXL_MARKS) for name in header):
        return CONTEXT_FAMILIES[1280 if width == 1280 else 2048]
    for family, marks in FAMILY_MARKS:
        if any(has_mark(name, mark) for name in header for mark in marks):
            return family
    if width in CONTEXT_FAMILIES:
        return CONTEXT_FAMILIES[width]
    is_convolution = any(len(shape) == 4 for shape in shapes_in(header, _PROJECTION))
    return "SD1.x" if is_convolution else ""


def _checkpoint_details(path: Path, header: Mapping[str, Any]) -> tuple[str, ...]:
    channels = header.get("in_channels")
    channels = channels if type(channels) is int else _channels(header)
    return tuple(
        detail
        for detail, is_so in (
            (_prediction(path, header), True),
            ("zero terminal SNR", "ztsnr" in header or our_facts(metadata_in(header)).get("zero_terminal_snr") is True),
            (f"inpainting ({INPAINT_CHANNELS} channels)", channels == INPAINT_CHANNELS),
        )
        if detail and is_so
    )


def _channels(header: Mapping[str, Any]) -> int | None:
    return next((shape[1] for shape in shapes_in(header, _FIRST_CONVOLUTION) if len(shape) == 4), None)


def _prediction(path: Path, header: Mapping[str, Any]) -> str:
    """Returns what the UNet predicts in words, "" for the usual epsilon or if the header does not tell."""
    metadata = metadata_in(header)
    if "edm_vpred.sigma_max" in header:
        return _PREDICTIONS["edm_v"]
    if "edm_mean" in header:
        return _PREDICTIONS["edm"]
    schedule = read_json_object(path / "scheduler" / "scheduler_config.json") if path.is_dir() else {}
    stated = [our_facts(metadata).get("prediction_type"), schedule.get("prediction_type")]
    stated += [metadata.get(name) for name in _PREDICTION_IN]
    texts = [text.lower() for text in stated if isinstance(text, str)]
    if "v_pred" in header or str(metadata.get("modelspec.architecture")).endswith("-768-v"):
        texts.append("v")
    spelled = next(iter(texts), "").replace("v_prediction", "v").replace("v-prediction", "v")
    return _PREDICTIONS.get(spelled, "")
