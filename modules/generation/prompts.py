"""Prepares a request's prompts: removes network tags, schedules the prompts of each pass, and collects contexts."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.core.errors import quoted
from modules.core.runner import TextInputs
from modules.generation.options import GenerationOptions, LoraChoice
from modules.generation.pass_settings import settings_of_passes
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

    @property
    def form(self) -> tuple[object, ...]:
        """What prompts must share to be rows of one batch: weights of parts, steps of changes, length in tokens."""
        steps = self.schedule.steps(negative=True)
        lengths = {encoded.context.shape[0] for encoded in self.encoded.values()}
        return self.weights, _numbers_by_step(steps), tuple(lengths)


def joined_contexts(
    prompts: Sequence[tuple[PassPrompts, int]], *, unconditional: bool, sizes: SizeFeatures | None = None
) -> Contexts:
    """Builds the texts of a batch from the prompts of each request, which have one form, and its number of pictures.

    The N rows of all pictures stand together for each part of the prompt, part by part; then come the negative rows if
    requested. `sizes`: the pass's picture sizes, for a UNet that reads a vector beside the text.
    """
    parts = len(prompts[0][0].schedule.parts)
    steps = list(zip(*(each.schedule.steps(negative=unconditional) for each, _ in prompts), strict=True))

    def inputs(said: tuple[tuple[str, ...], ...]) -> TextInputs:
        """The rows for what each request says at some step."""
        rows = [
            (each.encoded[texts[part]], number, part < parts)
            for part in range(len(said[0]))
            for (each, number), texts in zip(prompts, said, strict=True)
        ]
        context = torch.cat([text.context.expand(number, -1, -1) for text, number, _ in rows])
        if sizes is None:
            return TextInputs(context)
        vectors = [
            _vector(text, sizes.prompt if is_prompt else sizes.negative).expand(number, -1)
            for text, number, is_prompt in rows
        ]
        return TextInputs(context, torch.cat(vectors))

    return Contexts(
        distinct=tuple(inputs(said) for said in dict.fromkeys(steps)),
        by_step=_numbers_by_step(steps),
        conditional=parts * sum(number for _, number in prompts),
    )


def _numbers_by_step(steps: Sequence[Hashable]) -> tuple[int, ...]:
    """Numbers what is said at each step, in order of its first appearance."""
    numbers = {said: number for number, said in enumerate(dict.fromkeys(steps))}
    return tuple(numbers[said] for said in steps)


def _vector(text: EncodedText, sizes: Tensor) -> Tensor:
    """Returns the pooled text and the features of the picture's sizes, one after the other."""
    if text.pooled is None:
        raise ValueError("A UNet that reads a vector needs a text encoder with a pooled output.")
    return torch.cat([text.pooled, sizes.to(text.pooled)])


def read_schedules(options: GenerationOptions, noise: NoiseSchedule) -> dict[str, PromptSchedule]:
    """Reads the prompts of each pass, by phase. `options.prompt` and `negative_prompt` must not contain tags."""
    tell_words(options)
    read = read_schedule if options.emphasis in A1111_MODES else plain_schedule
    schedules: dict[str, PromptSchedule] = {}
    earlier: int | None = None
    for settings in settings_of_passes(options):
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
