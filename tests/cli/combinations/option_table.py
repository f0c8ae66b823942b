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
    "mask_blur": (ABSENT, ("--mask-blur", "4")),
    "mask_content": (ABSENT, ("--mask-content", "noise")),
    "control_net": (ABSENT, ("--control-net", "union", "--control-image", "photo.png", "--control-kind", "depth")),
    "control_strength": (ABSENT, ("--control-strength", "0.5")),
    "control_range": (ABSENT, ("--control-range", "0:0.6")),
    "control_mode": (ABSENT, ("--control-mode", "control")),
    "control_preprocessor": (ABSENT, ("--control-preprocessor", "canny")),
    "stable_fast_report": (ABSENT, ("--stable-fast-report", "report.txt")),
    "stable_fast_tune": (ABSENT, ("--stable-fast-tune", "1")),
    "negative_prompt": (ABSENT, ("--negative", "dog")),
    "seed": (ABSENT, ("--seed", "3")),
    "reuse_seed": (ABSENT, ("--reuse-seed",)),
    "steps": (("--steps", "2"), ("--steps", "1")),
    "cfg": (ABSENT, ("--cfg", "1")),
    "rescale_cfg": (ABSENT, ("--rescale-cfg", "0.7")),
    "sampler": (ABSENT, ("--sampler", "euler_ancestral"), ("--sampler", "DPM++ 2M Karras")),
    "scheduler": (ABSENT, ("--scheduler", "simple")),
    "preset": (ABSENT, ("--preset", "tcd")),
    "clip_skip": (ABSENT, ("--clip-skip", "2")),
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
    "width": "number",
    "height": "number",
}
END_AT_ONCE = {
    "list": ("--list", "samplers"),
    "doctor": ("--doctor",),
    "version": ("--version",),
}  # whatever other options are given

HIRES = tuple(name for name in VALUES if name.startswith("hires_"))
ACCELERATED = ("compare", "prio_speed", "stable_fast")
# An option -> other options, at least one of which must be given with it.
NEEDS: dict[str, Words] = {
    "keep_first_pass": HIRES,
    **dict.fromkeys(("denoise", "resize_mode", "mask", "mask_blur", "mask_content"), ("img2img",)),
    **dict.fromkeys([name for name in VALUES if name.startswith("control_")][1:], ("control_net",)),
    **dict.fromkeys(("stable_fast_report", "stable_fast_tune"), ACCELERATED),
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
        if row.get(name) and all(other in row and not accelerates(row[other]) for other in needed):
            return False
    off = row.get("stable_fast") == OFF  # overrides --prio-speed
    return not (off and (row.get("stable_fast_report") or row.get("stable_fast_tune")))


def accelerates(words: Words) -> bool:
    return bool(words) and words != OFF
