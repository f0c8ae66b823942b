"""Builds the left column: all settings of a picture, as Gradio components by field name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from modules.controlnet.names import CONTROL_KINDS, PREPROCESSORS
from modules.generation.option_table import STABLE_FAST_LEVELS
from modules.generation.options import CONTROL_MODES, MASK_CONTENTS
from modules.images.methods import IMAGE_MODES
from modules.sampling.names import SAMPLER_LABELS, SCHEDULER_LABELS
from ui.fields import (
    AUTOMATIC,
    CONTROL_SLOTS,
    IMAGE_MODE,
    LORA_SLOTS,
    OPTIONS,
    RANGES,
    TEXT_FIELDS,
    TEXT_MODE,
)
from ui.panels.file_lists import FileLists
from ui.panels.inputs import choice, file_choice, option_input, share, small_button
from ui.panels.picture_fields import PictureEditor, PictureFile

Components = dict[str, Any]
SAMPLER_CHOICES = [(label, name) for name, label in SAMPLER_LABELS.items()]
SCHEDULER_CHOICES = [(label, name) for name, label in SCHEDULER_LABELS.items()]
LEVEL_CHOICES = [(f"Level: {name}", name) for name in STABLE_FAST_LEVELS if name != "off"]
MASK_BRUSH = "#ff40a0"


def build_form(files: FileLists, values: Mapping[str, Any]) -> Components:
    """Returns components by name: all fields, and the form's buttons and messages."""
    lists = files.lists()
    parts = build_prompt(lists, values)
    shapes = files.shapes(values["checkpoint"], values["width"], values["height"])
    parts |= build_modes(shapes, values)
    parts |= build_sampling(values)
    parts |= build_models(lists, values)
    parts |= build_hires(lists, values)
    parts |= build_controls(lists, values)
    parts |= build_more(values)
    with gr.Accordion("Restore settings from a picture", open=False):
        parts["restore"] = gr.File(
            label="Drop a picture made here or with AUTOMATIC1111",
            file_types=["image"],
            height=110,
            elem_id="ld-restore",
        )
    return parts


def build_prompt(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Row():
        parts["checkpoint"] = file_choice(lists["checkpoint"], values["checkpoint"], "Checkpoint", scale=8)
        parts["refresh"] = small_button("Rescan", "ld-refresh")
    parts["prompt"] = gr.Textbox(
        values["prompt"],
        label="Prompt",
        lines=4,
        max_lines=10,
        elem_id="ld-prompt",
        placeholder="What the picture shows",
    )
    parts["negative_prompt"] = gr.Textbox(
        values["negative_prompt"], label="Negative prompt", lines=1, max_lines=6, placeholder="What it should not show"
    )
    with gr.Row():
        parts["generate"] = gr.Button(
            "Generate", variant="primary", elem_id="ld-generate", elem_classes="ld-generate", scale=3
        )
        parts["cancel"] = gr.Button("Cancel", elem_id="ld-cancel", elem_classes="ld-cancel", interactive=False, scale=1)
    parts["message"] = gr.HTML("", elem_id="ld-message")
    gr.HTML("", elem_id="ld-upload-message")  # filled in by the page's script
    with gr.Row(elem_id="ld-speed"):
        parts["stable_fast"] = gr.Checkbox(
            values["stable_fast"], label="Stable-Fast", container=True, elem_id="ld-stable-fast", scale=1
        )
        parts["level"] = gr.Dropdown(
            LEVEL_CHOICES, value=values["level"], show_label=False, label="Stable-Fast level", container=True, scale=2
        )
    parts["stable_fast_status"] = gr.HTML("", elem_id="ld-stable-fast-status")
    return parts


def build_modes(shapes: Mapping[str, Any], values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Tabs(selected=TEXT_MODE, elem_id="ld-modes") as parts["modes"]:
        with gr.Tab("Text to image", id=TEXT_MODE) as parts["text_tab"], gr.Row():
            parts["width"] = gr.Number(values["width"], label="Width", precision=0, step=8, min_width=80)
            parts["height"] = gr.Number(values["height"], label="Height", precision=0, step=8, min_width=80)
            parts["preset"] = gr.Dropdown(**shapes, label="Shape", min_width=150, scale=2)
            parts["swap"] = small_button("Swap", "ld-swap")
        with gr.Tab("Image to image", id=IMAGE_MODE) as parts["image_tab"]:
            parts |= build_image_mode(values)
    parts["mode"] = gr.State(TEXT_MODE)
    return parts


def build_image_mode(values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    parts["editor"] = PictureEditor(
        label="Picture; paint over the part to repaint",
        sources=["upload", "clipboard"],
        transforms=[],
        brush=gr.Brush(default_size=32, colors=[MASK_BRUSH], color_mode="fixed"),
        layers=gr.LayerOptions(allow_additional_layers=False, layers=["Mask"]),
        height=400,
        format="png",
        buttons=["fullscreen"],
        elem_id="ld-editor",
    )
    with gr.Row():
        parts["denoise"] = share(values["denoise"], "Denoise", info="0 keeps the picture, 1 ignores it")
        parts["keep_size"] = gr.Checkbox(
            values["keep_size"], label="Keep the picture's size", info="else use width and height", min_width=140
        )
    with gr.Accordion("Resizing and mask", open=False), gr.Row():
        parts["resize"] = choice(IMAGE_MODES, values["resize"], "Resize")
        parts["mask_content"] = choice(MASK_CONTENTS, values["mask_content"], "Masked part starts from")
        parts["mask_blur"] = gr.Number(values["mask_blur"], label="Mask blur", precision=0, min_width=90)
    return parts


def build_sampling(values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Column(visible=False) as parts["offer_panel"]:
        parts["offer"] = gr.HTML("", elem_id="ld-offer")
        parts["offer_use"] = gr.Button("Use these settings", size="sm", elem_id="ld-offer-use")
    with gr.Row():
        parts["steps"] = gr.Number(values["steps"], label="Steps", precision=0, min_width=80)
        parts["cfg"] = gr.Number(values["cfg"], label="CFG", step=0.5, min_width=80)
        parts["seed"] = gr.Textbox(
            values["seed"], label="Seed", placeholder="random", max_lines=1, min_width=110, scale=2, elem_id="ld-seed"
        )
        parts["dice"] = small_button("Random", "ld-dice")
        parts["reuse"] = small_button("Last", "ld-reuse")
    with gr.Row():
        parts["sampler"] = gr.Dropdown(SAMPLER_CHOICES, value=values["sampler"], label="Sampler", min_width=150)
        parts["scheduler"] = gr.Dropdown(SCHEDULER_CHOICES, value=values["scheduler"], label="Scheduler", min_width=150)
        parts["number"] = gr.Number(values["number"], label="Number", precision=0, min_width=70)
        parts["batch"] = gr.Number(values["batch"], label="Batch size", precision=0, min_width=70)
    return parts


def build_models(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Accordion("LoRA and VAE", open=False):
        for slot in range(1, LORA_SLOTS + 1):
            visible = slot == 1 or bool(values[f"lora_{slot - 1}"])
            with gr.Row(visible=visible) as parts[f"lora_{slot}_row"]:
                parts[f"lora_{slot}"] = file_choice(
                    lists[f"lora_{slot}"], values[f"lora_{slot}"], f"LoRA {slot}", scale=3
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


def build_hires(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Accordion("HiresFix", open=False) as parts["hires_panel"]:
        parts["hires"] = gr.Checkbox(values["hires"], label="HiresFix: enlarge, then sample a second time")
        with gr.Row():
            parts["hires_scale"] = gr.Slider(
                *RANGES["hires_scale"], values["hires_scale"], step=0.05, label="Enlarge by"
            )
            parts["hires_denoise"] = share(values["hires_denoise"], "HiresFix denoise")
        with gr.Row():
            parts["hires_method"] = file_choice(lists["hires_method"], values["hires_method"], "Upscaler")
            parts["hires_steps"] = gr.Number(
                values["hires_steps"], label="HiresFix steps", info="0: as above", precision=0, min_width=110
            )
        with gr.Row():
            parts["hires_sampler"] = gr.Dropdown(
                [("As above", AUTOMATIC), *SAMPLER_CHOICES], value=values["hires_sampler"], label="HiresFix sampler"
            )
            parts["hires_scheduler"] = gr.Dropdown(
                [("As above", AUTOMATIC), *SCHEDULER_CHOICES],
                value=values["hires_scheduler"],
                label="HiresFix scheduler",
            )
        with gr.Row():
            for name, label, empty in (
                ("cfg", "CFG", "as above"),
                ("width", "width", "auto"),
                ("height", "height", "auto"),
            ):
                parts[f"hires_{name}"] = gr.Number(
                    values[f"hires_{name}"], label=f"HiresFix {label}", placeholder=empty, min_width=110
                )
        parts["hires_keep"] = gr.Checkbox(values["hires_keep"], label="Keep the first pass too")
    return parts


def build_controls(lists: Components, values: Mapping[str, Any]) -> Components:
    parts: Components = {}
    with gr.Accordion("ControlNet", open=False) as parts["control_panel"], gr.Tabs():
        for slot in range(1, CONTROL_SLOTS + 1):
            with gr.Tab(f"ControlNet {slot}"):
                parts |= build_control(slot, lists[f"control_{slot}"], values)
    return parts


def build_control(slot: int, names: Any, values: Mapping[str, Any]) -> Components:
    def field(name: str) -> Any:
        return values[f"control_{slot}_{name}"]

    parts: Components = {}
    with gr.Row():
        parts["image"] = PictureFile(
            label=f"Control picture {slot}",
            type="filepath",
            sources=["upload", "clipboard"],
            height=190,
            min_width=180,
            elem_id=f"ld-control-{slot}",
        )
        with gr.Column(min_width=180):
            net = file_choice(names, values[f"control_{slot}"], f"ControlNet {slot} model")
            parts["preprocessor"] = choice(PREPROCESSORS, field("preprocessor"), f"Preprocessor {slot}")
            parts["mode"] = choice(CONTROL_MODES, field("mode"), f"Mode {slot}")
            kinds = [("Not a union file", AUTOMATIC), *CONTROL_KINDS]
            parts["kind"] = gr.Dropdown(kinds, value=field("kind"), label=f"Kind {slot}", min_width=110)
    with gr.Row():
        parts["strength"] = gr.Number(field("strength"), label=f"Strength {slot}", step=0.05, min_width=110)
        parts["start"] = share(field("start"), f"Start {slot}", min_width=110)
        parts["end"] = share(field("end"), f"End {slot}", min_width=110)
    return {f"control_{slot}": net, **{f"control_{slot}_{name}": part for name, part in parts.items()}}


def build_more(values: Mapping[str, Any]) -> Components:
    with gr.Accordion("More", open=False), gr.Row():
        return {name: option_input(option, values[name]) for name, option in OPTIONS.items() if option.page == "more"}
