"""Encodes the prompts of requests that agree in everything else, all of them at once, and keeps the latest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modules.generation.memory.encoders import encoders_at_work
from modules.generation.networks import Networks
from modules.generation.options import GenerationOptions
from modules.generation.prompts import PassPrompts
from modules.generation.session import Session
from modules.loader.patcher import ModelPatcher
from modules.text.encode import EncodedText, encode_groups
from modules.text.prompt_schedule import PromptSchedule

Schedules = Mapping[str, PromptSchedule]  # the prompts of each pass of a request, by phase


def encode_prompts(
    requests: Sequence[Schedules],
    options: GenerationOptions,
    networks: Networks,
    text: ModelPatcher,
    session: Session,
) -> list[dict[str, PassPrompts]]:
    """Encodes the prompts of each request. All texts of a request get the same length, as if it were alone.

    What was encoded lately is not encoded again. `options` are what the requests have in common; its LoRAs are those
    that `text` requests.
    """
    spec = networks.model.spec
    groups = [tuple(dict.fromkeys(said for schedule in each.values() for said in schedule.texts)) for each in requests]
    how = (
        networks.model.path,
        networks.level,
        options.emphasis,
        options.clip_skip,
        session.text_changes(options.loras),
    )

    def encode(places: Sequence[int]) -> list[dict[str, EncodedText]]:
        with encoders_at_work(networks, text) as encoders:
            return encode_groups(
                encoders,
                spec.texts,
                [groups[place] for place in places],
                emphasis=options.emphasis,
                clip_skip=options.clip_skip,
                embeddings=session.embeddings,
                tokenizer=session.tokenizer,
            )

    keys = [(how, texts, session.embeddings.stamps(texts)) for texts in groups]
    return [
        {phase: PassPrompts(schedule=schedule, encoded=encoded) for phase, schedule in schedules.items()}
        for schedules, encoded in zip(requests, session.prompts.get_all(keys, encode), strict=True)
    ]
