"""Builds the folded sections of the form; each header says what is in force, with a button to switch it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import gradio as gr

from ui.fields import (
    AUTOMATIC,
    CONTROL_SLOTS,
    LORA_SLOTS,
    OPTIONS,
    TEXT_FIELDS,
    hires_defaults,
    plain_defaults,
    tiled_defaults,
)

Values = Mapping[str, Any]
LORAS = [f"lora_{slot}" for slot in range(1, LORA_SLOTS + 1)]
CONTROLS = [f"control_{slot}" for slot in range(1, CONTROL_SLOTS + 1)]
MORE = [name for name, option in OPTIONS.items() if option.page == "more"]
TITLES = {
    "styles_panel": "Styles and wildcards",
    "lora_panel": "LoRA and VAE",
    "refiner_panel": "Refiner (SDXL)",
    "hires_panel": "HiresFix",
    "control_panel": "ControlNet",
    "more_panel": "More",
    "tiled_panel": "Tiled upscale",
}
# The values that switch a section off. Its other fields keep theirs.
OFF: dict[str, dict[str, Any]] = {
    "styles_panel": {"styles": []},
    "lora_panel": dict.fromkeys([*LORAS, "vae", *TEXT_FIELDS], AUTOMATIC),
    "refiner_panel": {"refiner": AUTOMATIC},
    "hires_panel": {"hires": hires_defaults()["hires"]},
    "control_panel": dict.fromkeys(CONTROLS, AUTOMATIC),
    "more_panel": {name: plain_defaults("")[name] for name in MORE},
    "tiled_panel": {"tiled": tiled_defaults()["tiled"]},
}
# The fields that a header speaks of.
SPOKEN_OF = (
    *(name for fields in OFF.values() for name in fields),
    *(f"{name}_strength" for name in LORAS),
    *(f"{name}_{part}" for name in CONTROLS for part in ("strength", "preprocessor")),
    *("refiner_start", "hires_scale", "hires_method", "hires_width", "hires_height"),
    *("tiled_scale", "tiled_method"),
)


def in_force(values: Values) -> dict[str, str]:
    """Returns what is in force in each section, in a few words; nothing for a section that is off."""
    nets = [control_words(values, name) for name in CONTROLS if values[name]]
    loras = [f"{stem(values[name])} {values[f'{name}_strength'] or 0:g}" for name in LORAS if values[name]]
    files = [stem(values[name]) for name in ("vae", *TEXT_FIELDS) if values[name]]
    changed = [name for name in MORE if values[name] != OFF["more_panel"][name]]
    return {
        "styles_panel": ", ".join(values["styles"] or ()),
        "lora_panel": ", ".join([*loras, *files]),
        "refiner_panel": f"{stem(values['refiner'])} from {values['refiner_start']:g}" if values["refiner"] else "",
        "hires_panel": hires_words(values) if values["hires"] else "",
        "control_panel": ", ".join(nets),
        "more_panel": ", ".join(f"{OPTIONS[name].label} {values[name]}" for name in changed),
        "tiled_panel": f"{values['tiled_scale']:g}x, {stem(values['tiled_method'])}" if values["tiled"] else "",
    }


def header(name: str, words: str) -> str:
    return f"{TITLES[name]}: {words}" if words else TITLES[name]


def control_words(values: Values, name: str) -> str:
    preprocessor = values[f"{name}_preprocessor"]
    made = "" if preprocessor == "none" else f" ({preprocessor})"
    return f"{stem(values[name])}{made} {values[f'{name}_strength'] or 0:g}"


def hires_words(values: Values) -> str:
    if values["hires_width"] and values["hires_height"]:
        return f"{values['hires_width']:g}x{values['hires_height']:g}, {stem(values['hires_method'])}"
    return f"{values['hires_scale']:g}x, {stem(values['hires_method'])}"


def stem(name: str) -> str:
    return PurePath(name).stem if name.endswith(".safetensors") else name


@contextmanager
def section(name: str, values: Values, parts: dict[str, Any]) -> Iterator[None]:
    """Opens a folded section as a context; adds it and its button to `parts`."""
    words = in_force(values)[name]
    with gr.Column(elem_classes="ld-section"):
        parts[f"{name}_off"] = gr.Button(
            "Switch off", visible=bool(words), size="sm", elem_id=f"ld-{name.replace('_', '-')}-off"
        )
        with gr.Accordion(header(name, words), open=False) as parts[name]:
            yield


def section_updates(values: Values) -> dict[str, Any]:
    """Returns the sections' headers and buttons for these values."""
    words = in_force(values)
    headers = {name: gr.Accordion(label=header(name, text)) for name, text in words.items()}
    return headers | {f"{name}_off": gr.Button(visible=bool(text)) for name, text in words.items()}
