"""Prepares a request's prompts: removes network tags, schedules the prompts of each pass, and collects contexts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.core.errors import quoted
from modules.core.runner import TextInputs
from modules.generation.options import GenerationOptions, LoraChoice
from modules.generation.pass_settings import first_settings, hires_settings
from modules.sampling.trained_noise import NoiseSchedule
from modules.text.encode import EncodedText
from modules.text.prompt import A1111_MODES, extract_loras, other_tags
from modules.text.prompt_schedule import PassSteps, PromptSchedule, changes, plain_schedule, read_schedule, split_at_and
from modules.text.size_vector import SizeFeatures

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """The texts of one pass: the distinct ones (R * N rows each), and the index of the text for each step.

    The first `conditional` rows of each belong to the prompt, any others to the negative prompt.
    """

    distinct: tuple[TextInputs, ...]
    by_step: tuple[int, ...]
    conditional: int


@dataclass(frozen=True, kw_only=True)
class PassPrompts:
    """The prompts of one pass. `encoded` maps each prompt text to its encoding; all have the same length."""

    schedule: PromptSchedule
    encoded: Mapping[str, EncodedText]

    @property
    def weights(self) -> tuple[float, ...]:
        """One weight for each part of a prompt joined by AND."""
        return self.schedule.weights

    def contexts(self, pictures: int, *, unconditional: bool, sizes: SizeFeatures | None = None) -> Contexts:
        """Builds N rows for N `pictures` per part of the prompt, part by part, then the negative rows if requested.

        `sizes`: the pass's picture sizes, for a UNet that reads a vector beside the text.
        """
        by_step = self.schedule.steps(negative=unconditional)
        numbers = {row: number for number, row in enumerate(dict.fromkeys(by_step))}
        return Contexts(
            distinct=tuple(self._inputs(row, pictures, sizes) for row in numbers),
            by_step=tuple(numbers[row] for row in by_step),
            conditional=len(self.schedule.parts) * pictures,
        )

    def _inputs(self, texts: tuple[str, ...], pictures: int, sizes: SizeFeatures | None) -> TextInputs:
        context = torch.cat([self.encoded[text].context.expand(pictures, -1, -1) for text in texts])
        if sizes is None:
            return TextInputs(context)
        vectors = [
            self._vector(text, sizes.prompt if part < len(self.schedule.parts) else sizes.negative)
            for part, text in enumerate(texts)
        ]
        return TextInputs(context, torch.cat([vector.expand(pictures, -1) for vector in vectors]))

    def _vector(self, text: str, sizes: Tensor) -> Tensor:
        """Returns the pooled text and the features of the picture's sizes, one after the other."""
        pooled = self.encoded[text].pooled
        if pooled is None:
            raise ValueError("A UNet that reads a vector needs a text encoder with a pooled output.")
        return torch.cat([pooled, sizes.to(pooled)])


def read_schedules(options: GenerationOptions, noise: NoiseSchedule) -> dict[str, PromptSchedule]:
    """Reads the prompts of each pass, by phase. `options.prompt` and `negative_prompt` must not contain tags."""
    passes = [first_settings(options)]
    if options.hires is not None:
        passes.append(hires_settings(options, options.hires))
    tell_words(options)
    read = read_schedule if options.emphasis in A1111_MODES else plain_schedule
    schedules: dict[str, PromptSchedule] = {}
    earlier: int | None = None
    for settings in passes:
        steps = max(len(settings.sigmas(noise)) - 1, 1)  # read_schedule needs a step, even for a skipped pass
        when = PassSteps(steps=steps, earlier=earlier)
        schedules[settings.phase] = read(options.prompt, options.negative_prompt, when)
        earlier = steps
    return schedules


def tell_words(options: GenerationOptions) -> None:
    """Warns when the prompt contains syntax that is plain text in the default mode but not in other modes."""
    texts = (options.prompt, options.negative_prompt)
    if options.emphasis == "comfy" and (any(map(changes, texts)) or len(split_at_and(options.prompt)) > 1):
        log.warning(
            "AND, [a:b:0.5] and [a|b] are read as ordinary words here. "
            "Give --emphasis a1111 if they are meant to join or change prompts."
        )


def take_loras_out(prompt: str) -> tuple[str, tuple[LoraChoice, ...]]:
    """Returns the prompt without its `<lora:name:weight>` tags, and the LoRAs in these tags."""
    text, tags = extract_loras(prompt)
    return text, tuple(
        LoraChoice(name=tag.name, strength=tag.model_weight, text_strength=tag.text_weight) for tag in tags
    )


def without_loras(negative: str) -> str:
    """Removes tags from the negative prompt. Warns about them, since a LoRA affects both prompts."""
    text, tags = extract_loras(negative)
    if tags:
        names = ", ".join(tag.name for tag in tags)
        log.warning("A LoRA in the negative prompt has no effect (%s): name it in the prompt.", names)
    return text


def tell_other_tags(options: GenerationOptions) -> None:
    """Warns about tags for unsupported kinds of networks."""
    tags = dict.fromkeys(other_tags(options.prompt) + other_tags(options.negative_prompt))
    if tags:
        log.warning(
            "Left out of the prompt: %s. Only <lora:...> and <lyco:...> tags are known here.", quoted(" ".join(tags))
        )
