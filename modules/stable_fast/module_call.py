"""Stable-Fast's view of one call of any module: its inputs by name, its form, and checks of both."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modules.stable_fast.config import Level
from modules.stable_fast.graph.flatten import (
    flatten,
    flatten_dims,
    flatten_inputs,
    laid_out,
    paths_of,
    with_leaves,
)
from modules.stable_fast.graph.sizes import Dims, SizeError, fixed_sizes, measure, parse_dim
from modules.stable_fast.graph.staging import MOMENTS, ROWS
from modules.stable_fast.graph.trace import TraceError, is_tracing
from modules.stable_fast.report import Report
from modules.stable_fast.runtime.execution import in_program_layout

log = logging.getLogger(__name__)

MOST_NUMBERS = 4  # programs for one form of call that differ only in a Python number

NamedInputs = dict[str, Any]


class Form(NamedTuple):
    """The properties that two calls must share to be served by one program."""

    adapts: bool
    tensors: tuple[Any, ...]
    constants: tuple[Any, ...]
    numbers: tuple[Any, ...]


class Given(NamedTuple):
    """The inputs of one call by name, in the module's order.

    `which`: the number of the prepared inputs; None if none were prepared. `overrules`: the call passes other values
    for some prepared inputs.
    """

    inputs: NamedInputs
    which: int | None
    overrules: bool


class Inputs:
    """Puts the inputs of a module's calls in order, including inputs prepared ahead."""

    def __init__(self, module: nn.Module, dims: Mapping[str, Any]) -> None:
        self._module = module
        self._dims: Mapping[str, Dims] = flatten_dims(dims)  # the named sizes
        self._names = names_of(self._dims)  # before any that is being dropped
        self._weaker: list[dict[str, Dims]] = []  # what to try if these do not hold either
        self._reason = ""  # why names are being dropped
        self._signature = inspect.signature(module.forward)
        self._prepared: NamedInputs = {}
        self._which = 0

    def prepare(self, which: int, inputs: NamedInputs) -> None:
        """Lets later calls leave these inputs out. `which` is the number of this set, for switching between sets."""
        self._prepared, self._which = inputs, which

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Given:
        """The inputs of a call with these arguments. Raises TypeError if the module does not take them.

        Raises TraceError while a larger module that contains this one is being traced.
        """
        if is_tracing():
            raise TraceError("it holds a module that is compiled already: compile the whole, or only the part")
        given = bind_call(self._signature, args, kwargs)
        inputs = in_order(self._signature, self._prepared | given)
        which = self._which if self._prepared else None
        return Given(inputs, which, overrules=bool(given.keys() & self._prepared.keys()))

    def call(self, given: Given, *, with_names: bool = True) -> ModuleCall:
        """The call with these inputs. Its sizes have no names unless `with_names`."""
        return ModuleCall(self._module, given, self._dims if with_names else {})

    def drop_names(self, reason: str, suspects: Collection[str] = ()) -> None:
        """Drops as few names as possible, so that each size that had one gets a separate trace.

        If the next call fails again before `settle`, others are dropped instead. `suspects` are dropped first.
        """
        self._reason = reason
        self._weaker = self._weaker or weaker(self._dims, suspects)
        self._dims = self._weaker.pop(0)

    @property
    def is_dropping(self) -> bool:
        """Whether names were dropped since the last `settle`."""
        return bool(self._reason)

    def settle(self) -> None:
        """The names left have proved true. Logs those that were dropped."""
        if self._reason:
            dropped = " and ".join(sorted(self._names - names_of(self._dims)))
            log.warning(
                "Stable-Fast traces %s anew for each size of %s: %s", type(self._module).__name__, dropped, self._reason
            )
        self._names, self._weaker, self._reason = names_of(self._dims), [], ""


class ModuleCall:
    """One call of a module in the form that programs and graphs take: on one device, and with names for its sizes.

    `dims` are the named sizes, empty if the call does not fit them. `form` is common to all calls that one program
    serves. `tensors` are the inputs by the names used in programs.
    """

    def __init__(self, module: nn.Module, given: Given, dims: Mapping[str, Dims]) -> None:
        self.module = module
        self.given = given
        self.inputs = on_one_device(given.inputs)
        leaves, kinds = flatten(self.inputs)
        self.tensors = {name: leaf.value for name, leaf in leaves.items() if isinstance(leaf.value, Tensor)}
        self.dims: Mapping[str, Dims] = dims if dims and fits(dims, self.tensors) else {}
        others = {name: leaf.value for name, leaf in leaves.items() if name not in self.tensors}
        self.form = form_of(kinds | others, self.tensors, self.dims)

    @property
    def keeps_prompt(self) -> bool:
        """Whether later calls have the same prompt, so that its results can be kept."""
        return self.given.which is not None and not self.given.overrules

    def in_program_layout(self, times: Mapping[str, int]) -> dict[str, Tensor]:
        """The tensors in the memory layout that programs take. Of those whose rows repeat `times`, the rows once."""
        once = {name: self.tensors[name][: len(self.tensors[name]) // count] for name, count in times.items()}
        return {name: in_program_layout(once.get(name, tensor)) for name, tensor in self.tensors.items()}

    def as_function(self) -> tuple[Callable[..., Any], list[Tensor]]:
        """The module as a function of tensors only, and the tensors of this call."""

        def function(*values: Tensor) -> Any:
            return call_module(self.module, with_tensors(self.inputs, dict(zip(self.tensors, values, strict=True))))

        return function, list(self.tensors.values())

    def name(self) -> str:
        """The name of calls of these sizes in reports."""
        return " ".join("x".join(map(str, tensor.shape)) for tensor in self.tensors.values())


def call_module(module: nn.Module, inputs: NamedInputs) -> Any:
    """The module's own result for these inputs, with gradients only in training mode."""
    args, kwargs = laid_out(module, inputs)
    with torch.set_grad_enabled(module.training and torch.is_grad_enabled()):
        return module(*args, **kwargs)


def names_of(dims: Mapping[str, Dims]) -> set[str]:
    """The names of sizes."""
    return {parse_dim(dim)[1] for named in dims.values() for dim in named if dim is not None}


def without(dims: Mapping[str, Dims], names: Collection[str]) -> dict[str, Dims]:
    """The named sizes without these names; empty if none is left."""
    kept = {
        name: tuple(None if dim is None or parse_dim(dim)[1] in names else dim for dim in named)
        for name, named in dims.items()
    }
    return kept if names_of(kept) else {}


def weaker(dims: Mapping[str, Dims], suspects: Collection[str]) -> list[dict[str, Dims]]:
    """Smaller sets of names, to be tried in this order: without one name, with only one beside the batch, with none.

    The batch is dropped last, unless it is the only suspect.
    """
    names = names_of(dims)
    others = sorted(names - {ROWS}, key=lambda name: (name not in suspects, name))
    drops = [{name} for name in others] + [{*others} - {name} for name in reversed(others)] + [{*others}]
    if set(suspects) == {ROWS}:
        drops.insert(0, {ROWS})
    fewer = dict.fromkeys(frozenset(each) for each in drops if each and each != names)
    return [*(without(dims, each) for each in fewer), {}]


def fits(dims: Mapping[str, Dims], tensors: Mapping[str, Tensor]) -> bool:
    """Whether these tensors fit the named sizes."""
    try:
        measure(dims, tensors)
    except SizeError:
        return False
    return True


def form_of(others: Mapping[str, Any], tensors: Mapping[str, Tensor], dims: Mapping[str, Dims]) -> Form:
    """The form of a call with these tensors and other values. Named sizes are not part of it."""
    facts = tuple(
        (name, tensor.dtype, tensor.device, tensor.dim(), *fixed_sizes(name, tensor, dims))
        for name, tensor in tensors.items()
    )
    constants: list[tuple[str, str]] = []
    numbers: list[tuple[str, str]] = []
    for name, value in others.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        (numbers if is_number else constants).append((name, repr(value)))
    return Form(bool(dims), facts, tuple(constants), tuple(numbers))


def number_changes(call: ModuleCall, known: Set[Any], report: Report) -> bool:
    """Whether a number among the inputs has had too many values for another program. If so, the report notes it."""
    names = changing_numbers(call.form, known)
    if names:
        paths = paths_of(call.inputs)
        numbers = " and ".join(paths[name] for name in names)
        reason = f"{numbers} is a number that changes from call to call: give it as a tensor"
        if all(shape.reason != reason for shape in report.shapes.values()):
            log.warning("Stable-Fast runs further values eagerly: %s", reason)
        report.lower_shape(call.name(), Level.OFF, reason)
    return bool(names)


def changing_numbers(form: Form, known: Set[Any]) -> list[str]:
    """Numbers among the inputs that have used up all programs allowed for them. `known`: forms served so far."""
    if not form.numbers or form in known:
        return []
    alike = [set(other.numbers) for other in known if other[:3] == form[:3]]
    names = {name for other in alike for name, _ in other ^ set(form.numbers)}
    return sorted(names) if len(alike) >= MOST_NUMBERS else []


def bind_call(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NamedInputs:
    """All inputs by name, including those that `**kwargs` takes."""
    call = signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            call |= call.pop(name, {})
    return call


def in_order(signature: inspect.Signature, call: NamedInputs) -> NamedInputs:
    """Inputs in the module's order, then others by name, so that the form does not depend on how they are passed."""
    places = {name: place for place, name in enumerate(signature.parameters)}
    return {name: call[name] for name in sorted(call, key=lambda name: (places.get(name, len(places)), name))}


def with_tensors(call: NamedInputs, tensors: Mapping[str, Tensor]) -> NamedInputs:
    """The call with its tensors replaced by these, which are named as in `flatten_inputs`."""
    return with_leaves(call, tensors.get)


def on_one_device(call: NamedInputs) -> NamedInputs:
    """Moves 0-dimensional CPU tensors to the device of the others: CUDA graphs cannot mix devices as operations can."""
    tensors = flatten_inputs(call)
    device = next((tensor.device for tensor in tensors.values() if tensor.device.type != "cpu"), None)
    if device is None:
        return call
    moved = {name: tensor.to(device) for name, tensor in tensors.items() if tensor.dim() == 0}
    return with_tensors(call, moved) if moved else call


def check_module(module: nn.Module, bindings: Mapping[str, str]) -> None:
    """Raises ValueError for a module in training mode and for an unknown moment."""
    for name, part in module.named_modules():
        if part.training:
            what = f"{type(module).__name__}.{name}".removesuffix(".")
            raise ValueError(f"{what} is in training mode, in which nothing is compiled: call module.eval() first")
    for name, moment in bindings.items():
        if moment not in MOMENTS:
            raise ValueError(f"{name} is bound to {moment!r}, which is not one of {', '.join(MOMENTS)}")


def check_example(
    module: nn.Module, example: NamedInputs, bindings: Mapping[str, str], dims: Mapping[str, Any]
) -> None:
    """Raises ValueError for bindings or dims of inputs that the module does not have."""
    parameters = inspect.signature(module.forward).parameters.values()
    declared = (parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD)
    inputs = list(dict.fromkeys((*declared, *example)))
    leaves, _ = flatten(example)
    known = {*inputs, *leaves, *(each for leaf in leaves.values() for each in leaf.around)}
    named = flatten_dims(dims)
    for what, names in (("bindings", bindings), ("dims", {**dims, **named})):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{what} names {name!r}, which is not an input of {type(module).__name__}; "
                    f"its inputs are {', '.join(inputs)}"
                )
    tensors = {leaf.path: leaf.value for leaf in leaves.values() if isinstance(leaf.value, Tensor)}
    measure({leaves[name].path: item for name, item in named.items() if name in leaves}, tensors)
