"""Records which implementation was chosen for each op and key, which ones ran, and which ones refused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from modules.stable_fast.kernels.accumulation import summed_in_single
from modules.stable_fast.kernels.candidates import Implementations, is_position
from modules.stable_fast.kernels.near_shapes import Times, predict

log = logging.getLogger(__name__)

# The sizes, options and dtype that determine the choice for an op. Tuned tables on disk contain these keys.
ChoiceKey = tuple[Any, ...]


class Tuner(Protocol):
    """Times the implementations on the given arguments and returns the name of the fastest; None if it timed none."""

    def __call__(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str | None: ...


def _capturing() -> bool:
    """Whether a CUDA graph is being recorded, which makes timing impossible."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


class ImplementationChoices:
    """The implementation for each (op, key). `chosen` comes from a table on disk or a tuner, the rest from calls.

    `imported` comes from a table that the user gave, and goes before `chosen`. `measured` has the times in all these
    tables by op and key, from which the choice for other keys is predicted. `probed` has the times of the few that were
    tried at a new size (see store/probes.py); a key without times there was not worth it.
    """

    def __init__(self) -> None:
        self.imported: dict[tuple[str, ChoiceKey], str] = {}
        self.chosen: dict[tuple[str, ChoiceKey], str] = {}
        self.measured: dict[str, dict[ChoiceKey, Times]] = {}
        self.probed: dict[str, dict[ChoiceKey, Times]] = {}
        self.predicted: dict[tuple[str, ChoiceKey], str | None] = {}
        self.used: dict[tuple[str, ChoiceKey], str] = {}
        self.refused: set[tuple[str, ChoiceKey, str]] = set()
        self.tuner: Tuner | None = None

    def pick(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        """The implementation to run: the imported or chosen one, else the tuner's choice, else the fastest probed, else
        what is predicted from near keys, else the default. A tuner without a choice is asked again at the next call."""
        # The name may come from another version, or belong to an implementation that has refused here before.
        names = [name for name in implementations if (op, key, name) not in self.refused]
        if (known := self._known(op, key, names)) is not None:
            return known
        likely = self.predict(op, key, implementations) or default
        if self.tuner is None or _capturing():
            return likely
        if (name := self.tuner(op, key, implementations, default, args)) is None:
            return likely
        self.chosen[op, key] = name
        return name

    @contextmanager
    def asking(self, tuner: Tuner | None) -> Iterator[None]:
        """Inside, `tuner`, or nobody, is asked for each key without a choice. What it chooses holds until the end."""
        before, earlier, self.tuner = dict(self.chosen), self.tuner, tuner
        try:
            yield
        finally:
            self.tuner = earlier
            self.chosen.clear()
            self.chosen.update(before)

    def _known(self, op: str, key: ChoiceKey, names: Collection[str]) -> str | None:
        """The imported or chosen one of these names."""
        given = (self.imported.get((op, key)), self.chosen.get((op, key)))
        return next((name for name in given if name in names), None)

    def learn(self, measured: Iterable[tuple[str, ChoiceKey, Times]]) -> None:
        """Predicts from these times from now on, and no longer from those before. The last of a key holds."""
        self.measured, self.predicted = {}, {}
        for op, key, times in measured:
            self.measured.setdefault(op, {})[key] = times

    def learn_probes(self, probed: Iterable[tuple[str, ChoiceKey, Times]]) -> None:
        """Uses these probes too from now on."""
        self.predicted = {}
        for op, key, times in probed:
            self.probed.setdefault(op, {})[key] = times

    def predict(self, op: str, key: ChoiceKey, implementations: Implementations) -> str | None:
        """The implementation that is likely to be the fastest, by its own probes, else by the times at near keys, else
        by the probes at near keys; None if there are none."""
        if (op, key) not in self.predicted:
            names = [name for name in implementations if (op, key, name) not in self.refused]
            probes = self.probed.get(op, {})
            own = {key: probes[key]} if key in probes else {}
            guesses = (predict(op, key, names, times) for times in (own, self.measured.get(op, {}), probes))
            self.predicted[op, key] = next(filter(None, guesses), None) or self._in_single(op, key, names)
        return self.predicted[op, key]

    def _in_single(self, op: str, key: ChoiceKey, names: Collection[str]) -> str | None:
        """For products summed in fp16, the choice for sums in fp32: no implementation gets slower by such sums."""
        if (single := summed_in_single(key)) == key:
            return None
        names = [name for name in names if not is_position(name)]
        return self._known(op, single, names) or predict(op, single, names, self.measured.get(op, {}))

    def refuse(self, op: str, key: ChoiceKey, name: str, error: Exception) -> None:
        """Records that `name` must not be tried again for this key. Warns once per implementation."""
        told = any((op, name) == (other, refused) for other, _, refused in self.refused)
        log.log(logging.DEBUG if told else logging.WARNING, "%s runs without %s: %s", op, name, error)
        self.refused.add((op, key, name))
        self.predicted.pop((op, key), None)


# One table per process: calls through torch.ops cannot pass an object with the choices, and the GPU and library
# versions do not change while a process runs.
CHOICES = ImplementationChoices()


def dtype_key(x: Tensor) -> str:
    """The dtype as written in a key, such as "float16"."""
    return str(x.dtype).removeprefix("torch.")
