"""Lists options by their names in other programs: those that work, and those that only get a hint."""

from __future__ import annotations

# Names from other programs with the same meaning here.
SYNONYMS = {
    "--cfg-scale": "--cfg",
    "--guidance-scale": "--cfg",
    "--negative-prompt": "--negative",
    "--model": "--checkpoint",
    "--output": "--output-dir",
    "-o": "--output-dir",
    "--batch-size": "--batch",
    "-p": "--prompt",
    "-W": "--width",
    "-H": "--height",
    "-n": "--number",
}
# Names from other programs that are written differently here.
HABITS = {
    "--cpu": "--device cpu",
    "--gpu": "--device cuda",
    "--cuda": "--device cuda",
    "--fp16": "--dtype float16",
    "--half": "--dtype float16",
    "--bf16": "--dtype bfloat16",
    "--fp32": "--dtype float32",
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
    "--out": "--output-dir",
    "--host": "--listen",
    "--share": "--listen with --auth",
    "-V": "--version",
    "-q": "--quiet",
}
