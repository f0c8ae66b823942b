"""Counts the tokens of both prompts while people type, and says what is wrong with a prompt beside it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.option_table import MAX_STEPS
from modules.generation.options import GenerationOptions
from ui.events.handlers import Update
from ui.events.wiring import Wiring
from ui.panels import prompt_lines
from ui.requests import read_seed

INPUTS = ("prompt", "negative_prompt", "styles", "emphasis", "seed", "steps")
PROMPTS = ("prompt", "negative_prompt")
COUNT_SOON = "() => { window.ldCountSoon(); }"


class PromptLength:
    """Counts as the engine reads the prompts."""

    def __init__(self, folders: ModelFolders) -> None:
        self.folders = folders

    def count(self, prompt: str, negative: str, styles: list[str], emphasis: str, seed: str, steps: Any) -> Update:
        options = GenerationOptions(
            prompt=prompt or "",
            negative_prompt=negative or "",
            styles=tuple(styles or ()),
            emphasis=emphasis,
            steps=min(max(1, int(steps or 1)), MAX_STEPS),  # a number out of range is refused later
        )
        with suppress(OptionsError):  # a seed that cannot be read is refused later
            options = replace(options, seed=read_seed(seed))
        return {f"{name}_length": self._line(options, name) for name in PROMPTS}

    def _line(self, options: GenerationOptions, name: str) -> str:
        from modules.generation.wording.prompt_length import prompt_length  # builds the tokenizer

        try:
            return prompt_lines.length_line(prompt_length(options, self.folders, name))
        except LightDiffusionError as error:
            return prompt_lines.mistake_line(str(error))


def connect_prompt_length(wiring: Wiring, length: PromptLength) -> None:
    parts = wiring.parts
    outputs = [f"{name}_length" for name in PROMPTS]
    wiring.on(parts["count"].click, length.count, INPUTS, outputs, queue=False)
    wiring.any_of(INPUTS, "change")(None, js=COUNT_SOON, api_visibility="private")
