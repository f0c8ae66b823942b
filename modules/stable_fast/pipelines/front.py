"""Stands before a network's `forward`: the network stays what it is, and its calls run compiled."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from modules.stable_fast.changes.fingerprint import ForwardFront, Structure, structure_of
from modules.stable_fast.compiled_module import CompiledModule
from modules.stable_fast.compiler import why_eager
from modules.stable_fast.config import Level, StableFastConfig, level_in_force
from modules.stable_fast.graph.flatten import flatten_inputs
from modules.stable_fast.graph.trace import ERRORS, TraceError, is_tracing
from modules.stable_fast.module_call import bind_call, in_order
from modules.stable_fast.pipelines.conditions import depends_on_mode, hidden_tensors, why_not_now, why_not_this_picture
from modules.stable_fast.pipelines.moments import Part, dims_of
from modules.stable_fast.pipelines.repeated_rows import inside_a_network, times_repeated
from modules.stable_fast.report import Report
from modules.stable_fast.runtime.capture_table import CaptureOn
from modules.stable_fast.runtime.lock import Turn

log = logging.getLogger(__name__)

Dims = dict[str, tuple[str | None, ...]]

MOST_MOVES = 3  # pictures in a row for which the weights move to other memory
MOST_KEPT = 4  # compiled forms of one network that differ in which inputs are given, or in their proportions


class Picture:
    """Counts the calls of a pipeline, so that networks look for changes once in each. `now`: 0 between them."""

    def __init__(self) -> None:
        self._started = self._open = 0
        self._turn = Turn()

    def __enter__(self) -> None:
        with self._turn:
            self._started, self._open = self._started + 1, self._open + 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._open -= 1

    @property
    def now(self) -> int:
        return self._started if self._open else 0


class Front(ForwardFront):
    """Called in place of `network.forward`; compiles at the first call. What cannot be compiled runs eagerly.

    A copy or a pickle of the network holds the network's own forward in its place.
    """

    def __init__(self, part: Part, config: StableFastConfig, picture: Picture, capture_on: CaptureOn) -> None:
        self._part, self._config, self._picture, self._capture_on = part, config, picture, capture_on
        self._own = own_forward(part.network)
        self.__wrapped__ = self._own  # inspect.signature shows the network's
        self._signature = inspect.signature(self._own)
        self._compiled: dict[Any, CompiledModule] = {}
        self._moves = self._moved_at = 0
        self._looked: dict[Any, int] = {}  # the picture at which each of them last looked for changes
        self._is_inside = self._is_removed = self._has_retried = False
        self._turn = Turn()
        self._why_off, self._why_not = "", "not called yet"  # for good, and until the next look
        self.reason = "not called yet"

    def __reduce__(self) -> tuple[Callable[[nn.Module], Any], tuple[nn.Module]]:
        return own_forward, (self._part.network,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_tracing() or self._is_removed:
            return self._own(*args, **kwargs)
        with self._turn:
            if self._is_inside:  # the compiled module calls the network itself
                return self._own(*args, **kwargs)
            self._is_inside = True
            try:
                with inside_a_network():
                    return self._called(args, kwargs)
            finally:
                self._is_inside = False

    @property
    def report(self) -> Report:
        """The report of a form of call that runs eagerly, with the reason, if there is one; else of the latest form."""
        reports = [compiled.report for compiled in self._compiled.values()]
        if reports and not self.reason:
            return next((report for report in reports if report.level.is_off), reports[-1])
        level = Level.OFF if self.reason else level_in_force(self._config.level)[0]
        return Report(asked=self._config.level, level=level, reason=self.reason)

    @property
    def network(self) -> nn.Module:
        return self._part.network

    def attach(self) -> None:
        """Puts this front before the network's forward, and the network in evaluation mode if that changes nothing."""
        self._part.network.forward = self
        if not any(depends_on_mode(part) for part in self._part.network.modules()):
            self._part.network.eval()

    def remove(self) -> None:
        """Gives the network its own forward back, and frees all programs."""
        self._is_removed = True  # an offloading hook may still hold this front
        if vars(self._part.network).get("forward") is self:
            del self._part.network.forward
        self._free()

    def _called(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if self._why_not and (self._is_first("hooks") or not self._part.kind.in_steps):
            self._why_not = why_not_this_picture(self._part.network)
        self.reason = self._why_off or why_not_now(self._part.network) or self._why_not
        if self.reason:
            return self._own(*args, **kwargs)
        try:
            return self._fast(args, kwargs)
        except torch.AcceleratorError:
            raise
        except ERRORS as error:
            reason = why_eager(error)
        result = self._own(*args, **kwargs)  # raises the network's own error if the call is invalid
        self._why_off = self.reason = reason
        log.warning("%s runs without Stable-Fast: %s", self._part.name, reason)
        self._free()
        return result

    def _is_first(self, what: Any) -> bool:
        """Whether this is asked about `what` for the first time in a picture; always, outside of pictures."""
        now = self._picture.now
        is_seen = now and self._looked.get(what) == now
        self._looked[what] = now
        return not is_seen

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], Dims, str]:
        """The inputs by name, their named sizes, and why this call has to run eagerly, "" if it need not."""
        call = in_order(self._signature, bind_call(self._signature, args, kwargs))
        tensors = flatten_inputs(call)
        reason = hidden_tensors(call, tensors)
        if reason:
            return call, {}, reason
        numbers = {name: call[name] for name in self._part.kind.numbers if isinstance(call.get(name), float)}
        if numbers:
            device = next(iter(tensors.values())).device
            call |= {name: torch.tensor(number, device=device) for name, number in numbers.items()}
            tensors = flatten_inputs(call)
        return call, dims_of(self._part, tensors, call), ""

    def _fast(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        call, dims, self.reason = self._bound(args, kwargs)
        compiled = None if self.reason else self._form(dims)
        if compiled is None:
            return self._own(*args, **kwargs)
        if self._has_retried:
            return compiled.called(call)
        before = structure_of(self._part.network)
        result = compiled.called(call)
        self._retry_after_setup(before)
        return result

    def _retry_after_setup(self, before: Structure) -> None:
        """Lets a network be compiled again, once, that set itself up during its very first call.

        transformers' encoders do: they install hooks, and a network that changes itself cannot be traced.
        """
        self._has_retried = True
        if self.report.level.is_off and structure_of(self._part.network) != before:
            self._free()

    def _form(self, dims: Dims) -> CompiledModule | None:
        """The compiled module for calls with these named sizes, after a look for changes; None with a new `reason`.

        Networks that run in steps look once a picture. Others look at each call, and read their weights once a picture.
        """
        key = tuple(dims.items())
        is_first = self._is_first(key)
        is_due = is_first or not self._part.kind.in_steps  # in a picture, a VAE may be moved to another dtype and back
        compiled = self._compiled.get(key)
        if is_due and (compiled is None or not compiled.begin_look(reads_weights=is_first)):
            self.reason = self._why_not = why_not_this_picture(self._part.network)  # hooks are among what is compared
            if self.reason:
                self._looked = {"hooks": self._picture.now}  # all forms look again once this reason is gone
                return None
        compiled = self._compiled.pop(key, None) or self._compile(dims)
        self._compiled[key] = compiled  # the latest last
        if is_due and compiled.look(reads_weights=is_first):
            self._note_move()
        return compiled

    def _note_move(self) -> None:
        """Raises TraceError if the weights moved in as many pictures in a row as are allowed."""
        now = self._picture.now
        self._moves, self._moved_at = (self._moves + 1 if now - self._moved_at == 1 else 1), now
        if self._moves >= MOST_MOVES:
            raise TraceError("its weights move to other memory in each picture, as those of a VAE that is upcast")

    def _compile(self, dims: Mapping[str, Any]) -> CompiledModule:
        while len(self._compiled) >= MOST_KEPT:
            oldest = next(iter(self._compiled))
            self._compiled.pop(oldest).release()
            self._looked.pop(oldest, None)
        return CompiledModule(
            self._part.network,
            self._part.kind.moments,
            dims,
            level=self._config.level,
            table=self._config.table,
            precision=self._config.precision if self._part.kind.in_steps else "off",
            capture_on=self._capture_on,
            proves_sizes=True,
            times_repeated=times_repeated,
        )

    def _free(self) -> None:
        for compiled in self._compiled.values():
            compiled.release()
        self._compiled.clear()


def own_forward(network: nn.Module) -> Any:
    """The forward of the network's class, bound to it."""
    return type(network).forward.__get__(network)
