"""The command line's options with representative values, and rules about which options exclude or need each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Words = tuple[str, ...]
ABSENT: Words = ()
OFF: Words = ("--stable-fast=off",)

# Keys are the parser's names; `option_files` in test_option_pairs.py makes the files. An option that others need comes
# before them. Sizes are always given, because the native size of the tiny checkpoint takes too long.
VALUES: dict[str, tuple[Words, ...]] = {
    "compare": (ABSENT, ("--compare",)),
    "stable_fast": (ABSENT, ("--stable-fast",), OFF, ("--stable-fast", "graph"), ("--stable-fast=fused",)),
    "prio_speed": (ABSENT, ("--prio-speed",)),
    "from_image": (ABSENT, ("--from-image", "made.png")),
    "prompts": (("a (red:1.2) [cat]",), ("--prompts", "prompts.txt"), ABSENT),
    "number": (("1",), ("2",)),
    "batch": (("1",), ("2",)),
    "hires_fix": (ABSENT, ("--hires-fix",)),
    "hires_scale": (ABSENT, ("--hires-scale", "1.5")),
    "hires_size": (ABSENT, ("--hires-size", "72x80")),
    "hires_method": (ABSENT, ("--hires-method", "lanczos"), ("--hires-method", "bislerp")),
    "hires_steps": (ABSENT, ("--hires-steps", "1")),
    "hires_denoise": (ABSENT, ("--hires-denoise", "0.5")),
    "hires_cfg": (ABSENT, ("--hires-cfg", "1")),
    "hires_sampler": (ABSENT, ("--hires-sampler", "euler")),
    "hires_scheduler": (ABSENT, ("--hires-scheduler", "simple")),
    "keep_first_pass": (ABSENT, ("--keep-first-pass",)),
    "img2img": (ABSENT, ("--img2img", "photo.png")),
    "denoise": (ABSENT, ("--denoise", "0.5"), ("--denoise", "1")),
    "resize_mode": (ABSENT, ("--resize-mode", "crop")),
    "mask": (ABSENT, ("--mask", "mask.png")),
    "mask_colour": (ABSENT, ("--mask-colour", "808080", "--mask-tolerance", "100")),
    "mask_blur": (ABSENT, ("--mask-blur", "4")),
    "mask_content": (ABSENT, ("--mask-content", "noise")),
    "mask_invert": (ABSENT, ("--mask-invert",)),
    "only_masked": (ABSENT, ("--only-masked",)),
    "each_part": (ABSENT, ("--each-part",)),
    "mask_padding": (ABSENT, ("--mask-padding", "8")),
    "mask_soft": (ABSENT, ("--mask-soft",)),
    "outpaint": (ABSENT, ("--outpaint", "left=8,bottom=16")),
    "outpaint_seam": (ABSENT, ("--outpaint-seam", "8")),
    "tiled_upscale": (ABSENT, ("--tiled-upscale", "1", "--tile-overlap", "16", "--upscaler", "lanczos")),
    "control_net": (ABSENT, ("--control-net", "union", "--control-image", "photo.png", "--control-kind", "depth")),
    "control_strength": (ABSENT, ("--control-strength", "0.5")),
    "control_range": (ABSENT, ("--control-range", "0:0.6")),
    "control_mode": (ABSENT, ("--control-mode", "control")),
    "control_preprocessor": (ABSENT, ("--control-preprocessor", "canny")),
    "stable_fast_report": (ABSENT, ("--stable-fast-report", "report.txt")),
    "stable_fast_tune": (ABSENT, ("--stable-fast-tune", "1")),
    "stable_fast_precision": (ABSENT, ("--stable-fast-precision", "fp16-accumulate")),
    "stable_fast_skip": (ABSENT, ("--stable-fast-skip", "0")),
    "stable_fast_table": (ABSENT, ("--stable-fast-table", "table.json")),
    "negative_prompt": (ABSENT, ("--negative", "dog")),
    "style": (ABSENT, ("--style", "drawing")),
    "seed": (ABSENT, ("--seed", "3")),
    "reuse_seed": (ABSENT, ("--reuse-seed",)),
    "steps": (("--steps", "2"), ("--steps", "1")),
    "cfg": (ABSENT, ("--cfg", "1")),
    "rescale_cfg": (ABSENT, ("--rescale-cfg", "0.7")),
    "sampler": (ABSENT, ("--sampler", "euler_ancestral"), ("--sampler", "DPM++ 2M Karras")),
    "scheduler": (ABSENT, ("--scheduler", "simple")),
    "preset": (ABSENT, ("--preset", "tcd")),
    "clip_skip": (ABSENT, ("--clip-skip", "2")),
    "original_size": (ABSENT, ("--original-size", "512x512")),
    "crop": (ABSENT, ("--crop", "8,8")),
    "emphasis": (ABSENT, ("--emphasis", "a1111"), ("--emphasis", "no_norm"), ("--emphasis", "off")),
    "checkpoint": (ABSENT, ("--checkpoint", "tiny")),
    "vae": (ABSENT, ("--vae", "other")),
    "text_encoder": (ABSENT, ("--text-encoder", "tiny")),
    "prediction": (ABSENT, ("--prediction", "v")),
    "lora": (ABSENT, ("--lora", "ink:0.8", "--lora", "clay")),
    "device": (ABSENT, ("--device", "cpu")),
    "dtype": (ABSENT, ("--dtype", "float32")),
    "memory": (ABSENT, ("--memory", "low")),
    "output_dir": (ABSENT, ("--output-dir", "elsewhere")),
    "json": (ABSENT, ("--json",)),
    "quiet": (ABSENT, ("--quiet",)),
}  # fmt: skip
ALWAYS_TOGETHER = {
    "prompt": "prompts",
    "control_image": "control_net",
    "control_kind": "control_net",
    "mask_tolerance": "mask_colour",
    "tile_overlap": "tiled_upscale",
    "upscaler": "tiled_upscale",
    "width": "number",
    "height": "number",
}
FOR_SDXL = ("refiner", "refiner_start")  # the tiny checkpoint is SD1.x; see tests/whole/test_refiner.py
END_AT_ONCE = {
    "list": ("--list", "samplers"),
    "doctor": ("--doctor",),
    "version": ("--version",),
}  # whatever other options are given
# tests/cli/runs/test_upscaling.py, tests/cli/test_table_file.py
WITHOUT_A_PROMPT = ("upscale", "upscale_by", "upscale_to", "stable_fast_export")
OF_A_CLUSTER = ("cluster", "workers")  # they start Ray: tests/cli/test_cluster.py

HIRES = tuple(name for name in VALUES if name.startswith("hires_"))
OF_STABLE_FAST = tuple(f"stable_fast_{name}" for name in ("report", "tune", "table", "precision", "skip"))
MASKS = ("mask", "mask_colour")
ACCELERATED = ("compare", "prio_speed", "stable_fast")
# An option -> other options, at least one of which must be given with it.
NEEDS: dict[str, Words] = {
    "keep_first_pass": HIRES,
    **dict.fromkeys(("denoise", "resize_mode", *MASKS, "outpaint", "tiled_upscale"), ("img2img",)),
    **dict.fromkeys(("mask_blur", "mask_invert", "each_part"), MASKS),
    **dict.fromkeys(("mask_content", "only_masked", "mask_soft"), (*MASKS, "outpaint")),
    "mask_padding": ("only_masked", "each_part"),
    "outpaint_seam": ("outpaint",),
    **dict.fromkeys([name for name in VALUES if name.startswith("control_")][1:], ("control_net",)),
    **dict.fromkeys(OF_STABLE_FAST, ACCELERATED),
}  # fmt: skip


@dataclass(frozen=True)
class Exclusion:
    """Two settings that are refused together, each as (option, first characters of its joined words)."""

    first: tuple[str, str]
    second: tuple[str, str]

    def holds_in(self, row: Mapping[str, Words]) -> bool:
        return all(name in row and " ".join(row[name]).startswith(text) for name, text in (self.first, self.second))


EXCLUSIONS = (
    Exclusion(("prompts", "--prompts"), ("compare", "--compare")),
    Exclusion(("prompts", "--prompts"), ("reuse_seed", "--reuse")),
    Exclusion(("seed", "--seed"), ("reuse_seed", "--reuse")),
    Exclusion(("compare", "--compare"), ("stable_fast", "--stable-fast=off")),
    Exclusion(("compare", "--compare"), ("number", "2")),
    Exclusion(("compare", "--compare"), ("batch", "2")),
    Exclusion(("only_masked", "--only-masked"), ("resize_mode", "--resize-mode")),
    Exclusion(("each_part", "--each-part"), ("resize_mode", "--resize-mode")),
    *(Exclusion(("outpaint", "--outpaint"), (name, "--mask")) for name in MASKS),
    *(
        Exclusion((name, f"--{name.replace('_', '-')}"), ("outpaint_seam", "--outpaint-seam"))
        for name in (*MASKS, "mask_blur", "mask_invert", "each_part")
    ),
    Exclusion(("each_part", "--each-part"), ("keep_first_pass", "--keep-first-pass")),
    *(
        Exclusion(("tiled_upscale", "--tiled"), (name, " ".join(words)))
        for name in ("resize_mode", *MASKS, "outpaint", *HIRES)
        for words in VALUES[name][1:]
    ),
)


def allowed(row: Mapping[str, Words]) -> bool:
    """Returns whether the command line accepts these settings together; `row` may be incomplete."""
    if any(exclusion.holds_in(row) for exclusion in EXCLUSIONS):
        return False
    if row.get("prompts") == ABSENT and (
        row.get("from_image") == ABSENT or "2" in (*row.get("number", ()), *row.get("batch", ()))
    ):
        return False  # the four numbers must follow a prompt
    for name, needed in NEEDS.items():
        if row.get(name) and not any(can_be_given(other, row) for other in needed):
            return False
    off = row.get("stable_fast") == OFF  # overrides --prio-speed
    return not (off and any(row.get(name) for name in OF_STABLE_FAST))


def can_be_given(name: str, row: Mapping[str, Words]) -> bool:
    """Returns whether an option and what it needs are given in the row, or still may be."""
    if name in NEEDS and not any(can_be_given(other, row) for other in NEEDS[name]):
        return False
    values = [row[name]] if name in row else VALUES[name]
    rows = [{**row, name: value} for value in values if accelerates(value)]
    return any(not any(exclusion.holds_in(each) for exclusion in EXCLUSIONS) for each in rows)


def accelerates(words: Words) -> bool:
    return bool(words) and words != OFF
