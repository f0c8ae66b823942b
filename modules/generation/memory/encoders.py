"""Makes text encoders ready to work; those that are not on the GPU come there one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from modules.generation.networks import Networks
from modules.loader.patcher import ModelPatcher
from modules.loader.placement import TEXT


@contextmanager
def encoders_at_work(networks: Networks, text: ModelPatcher) -> Iterator[Mapping[str, Any]]:
    """Yields the encoders by name, with the patches that `text` requests. Use one after the other."""
    if TEXT not in networks.model.away:
        text.apply()
        yield networks.texts
        return
    with ExitStack() as visit:
        yield OneAtATime(text, visit)


class OneAtATime(Mapping[str, Any]):
    """Looking up an encoder brings it to its device, after the one before has left: together they may not fit."""

    def __init__(self, text: ModelPatcher, visit: ExitStack) -> None:
        self._text = text
        self._visit = visit

    def __getitem__(self, name: str) -> Any:
        self._visit.close()
        return self._visit.enter_context(self._text.at_work(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._text.module.named_children())

    def __len__(self) -> int:
        return len(list(self._text.module.children()))
