"""Builds the sections of models besides the checkpoint: LoRAs, VAE, text encoders, refiner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.fields import LORA_SLOTS, RANGES, TEXT_FIELDS
from ui.panels.inputs import (
    Components,
    file_choice,
    share,
)
from ui.panels.sections import section


def build_models(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with section("lora_panel", values, parts):
        for slot in range(1, LORA_SLOTS + 1):
            with gr.Row(visible=slot == 1 or bool(values[f"lora_{slot - 1}"] or values[f"lora_{slot}"])) as parts[
                f"lora_{slot}_row"
            ]:
                parts[f"lora_{slot}"] = file_choice(
                    lists[f"lora_{slot}"], values[f"lora_{slot}"], f"LoRA {slot}", scale=2
                )
                parts[f"lora_{slot}_strength"] = gr.Slider(
                    *RANGES[f"lora_{slot}_strength"],
                    values[f"lora_{slot}_strength"],
                    step=0.05,
                    label=f"LoRA {slot} strength",
                    scale=2,
                )
                parts[f"lora_{slot}_text"] = gr.Number(
                    values[f"lora_{slot}_text"], label=f"LoRA {slot} text", placeholder="same", step=0.05, min_width=90
                )
        parts["vae"] = file_choice(lists["vae"], values["vae"], "VAE")
        with gr.Row():
            for name, label in zip(TEXT_FIELDS, ("Text encoder", "Second text encoder (SDXL)"), strict=True):
                parts[name] = file_choice(lists[name], values[name], label)
    return parts


def build_refiner(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with section("refiner_panel", values, parts), gr.Row():
        parts["refiner"] = file_choice(lists["refiner"], values["refiner"], "Refiner")
        parts["refiner_start"] = share(values["refiner_start"], "Refiner start", info="0.8: the last fifth")
    return parts
