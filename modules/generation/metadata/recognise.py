"""Recognises the program that wrote a picture's settings."""

from __future__ import annotations

from collections.abc import Mapping

from modules.core.errors import OptionsError
from modules.generation.metadata.programs import a1111, civitai, comfyui, fooocus, invokeai, novelai, swarmui
from modules.generation.metadata.recipe import Recipe
from modules.images.metadata import PNG_KEY

# Other formats inside `parameters` come before A1111's. If a picture contains both A1111's text and a ComfyUI graph,
# the text is read, since it is more complete.
PROGRAMS = (swarmui, fooocus, civitai, a1111, comfyui, invokeai, novelai)
# Programs that are recognised but not supported: the text's name, a word in it, and the program.
STRANGERS = (
    ("XML:com.adobe.xmp", "Draw Things", "Draw Things"),
    ("Software", "Draw Things", "Draw Things"),
    ("Software", "Mochi Diffusion", "Mochi Diffusion"),
    ("Software", "DiffusionBee", "DiffusionBee"),
    ("Software", "NovelAI", "NovelAI"),
    ("Software", "Adobe Firefly", "Adobe Firefly"),
    ("Software", "Celsys", "Clip Studio"),
    ("use_stable_diffusion_model", "", "Easy Diffusion"),
    ("smproj", "", "Stability Matrix"),
    ("parameters-json", "", "Stability Matrix"),
    ("invokeai_metadata", "", "InvokeAI"),
    ("invokeai_graph", "", "InvokeAI"),
    ("sd-metadata", "", "InvokeAI"),
    ("Dream", "", "InvokeAI"),
    ("fooocus_scheme", "", "Fooocus"),
    ("workflow", "{", "ComfyUI"),
    ("prompt", "{", "ComfyUI"),
    ("Description", "Job ID:", "Midjourney"),
    ("ImageDescription", "Job ID:", "Midjourney"),
    (PNG_KEY, "RuinedFooocus", "RuinedFooocus"),
    (PNG_KEY, "sui_image_params", "SwarmUI"),
)


def read_recipe(texts: Mapping[str, str]) -> Recipe:
    """Reads the recipe. If there are no settings, raises OptionsError, with the program's name if it is known."""
    for program in PROGRAMS:
        recipe = program.read(texts)
        if recipe is not None:
            return recipe
    for name, word, stranger in STRANGERS:
        if word in texts.get(name, "") and name in texts:
            raise OptionsError(f"This picture was made by {stranger}, whose settings cannot be read here: enter them.")
    raise OptionsError("This picture holds no generation text in a known format, so its settings cannot be read.")
