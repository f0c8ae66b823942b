"""Lists other programs' option names: those accepted here, and those for which an error suggests our own name."""

from __future__ import annotations

from modules.generation.option_table import PLAIN_OPTIONS

# Other programs' options that mean the same here.
SYNONYMS = {
    "-p": "--prompt",
    "-W": "--width",
    "-H": "--height",
    **{alias: option.flag for option in PLAIN_OPTIONS for alias in option.aliases},
    "--negative-prompt": "--negative",
    "--mask-color": "--mask-colour",
    "-o": "--output-dir",
    "--output": "--output-dir",
}
# Other programs' options that must be written differently here.
HABITS = {
    "--cpu": "--device cpu",
    "--gpu": "--device cuda",
    "--cuda": "--device cuda",
    "--fp16": "--dtype float16",
    "--half": "--dtype float16",
    "--bf16": "--dtype bfloat16",
    "--fp32": "--dtype float32",
    "--lowvram": "--memory low",
    "--medvram": "--memory auto",
    "--highvram": "--memory high",
    "--num-inference-steps": "--steps",
    "--sampling-steps": "--steps",
    "-s": "--steps",
    "--ckpt": "--checkpoint",
    "--count": "--number",
    "--num-images": "--number",
    "--size": "--width and --height",
    "--init-image": "--img2img",
    "--image": "--img2img",
    "--strength": "--denoise",
    "--denoising-strength": "--denoise",
    "--inpainting-fill": "--mask-content",
    "--inpaint-fill": "--mask-content",
    "--inpaint-full-res": "--only-masked",
    "--inpaint-full-res-padding": "--mask-padding",
    "--inpainting-mask-invert": "--mask-invert",
    "--out": "--output-dir",
    "--host": "--listen",
    "--share": "--listen with --auth",
    "-V": "--version",
    "-q": "--quiet",
}


def synonyms_in_words() -> str:
    """Returns `-p (--prompt), --cfg-scale and --guidance-scale (--cfg), ...`"""
    taken = {own: [name for name, meant in SYNONYMS.items() if meant == own] for own in SYNONYMS.values()}
    return ", ".join(f"{' and '.join(names)} ({own})" for own, names in taken.items())
