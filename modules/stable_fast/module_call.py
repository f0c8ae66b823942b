"""One call of any module as Stable-Fast sees it: its inputs by name, what it shares with other calls, what is amiss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modules.stable_fast.graph.flatten import flatten_constants, flatten_dims, flatten_inputs, rebuilt
from modules.stable_fast.graph.sizes import SizeError, fixed_sizes, measure
from modules.stable_fast.graph.trace import TraceError

MOST_NUMBERS = 4  # programs of one form of call that differ by a Python number only

Call = dict[str, Any]
Key = tuple[Any, ...]


class Form(NamedTuple):
    """What two calls must share to be served by one program."""

    adapts: bool
    tensors: Key
    constants: Key
    numbers: Key


def form_of(call: Call, dims: Mapping[str, Any]) -> Form:
    named = flatten_dims(dims)
    tensors = tuple(
        (name, tensor.dtype, tensor.device, tensor.dim(), *fixed_sizes(name, tensor, named))
        for name, tensor in flatten_inputs(call).items()
    )
    constants: list[Key] = []
    numbers: list[Key] = []
    for name, value in flatten_constants(call).items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        (numbers if is_number else constants).append((name, repr(value)))
    return Form(bool(named), tensors, tuple(constants), tuple(numbers))


def changing_numbers(form: Form, known: Set[Form]) -> list[str]:
    """Inputs given as numbers that have had so many values that no other is worth a program of its own."""
    if not form.numbers or form in known:
        return []
    alike = [set(other.numbers) for other in known if other[:3] == form[:3]]
    names = {name for other in alike for name, _ in other ^ set(form.numbers)}
    return sorted(names) if len(alike) >= MOST_NUMBERS else []


def bind_call(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """All inputs by name, those taken by `**kwargs` among them."""
    call = signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            call |= call.pop(name, {})
    return call


def in_order(signature: inspect.Signature, call: Call) -> Call:
    """In the module's order, others by name: in which way inputs were given makes no other form of call."""
    places = {name: place for place, name in enumerate(signature.parameters)}
    return {name: call[name] for name in sorted(call, key=lambda name: (places.get(name, len(places)), name))}


def with_tensors(call: Call, tensors: Mapping[str, Tensor]) -> Call:
    """The call with other tensors in its places, which are named as by `flatten_inputs`."""

    def convert(name: str, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return rebuilt(value, (convert(f"{name}_{index}", item) for index, item in enumerate(value)))
        return tensors.get(name, value)

    return {name: convert(name, value) for name, value in call.items()}


def on_one_device(call: Call) -> Call:
    """CPU tensors without dimensions moved to where the others are: operations take both, CUDA graphs do not."""
    tensors = flatten_inputs(call)
    device = next((tensor.device for tensor in tensors.values() if tensor.device.type != "cpu"), None)
    if device is None:
        return call
    moved = {name: tensor.to(device) for name, tensor in tensors.items() if tensor.dim() == 0}
    return with_tensors(call, moved) if moved else call


def device_of(module: nn.Module, call: Call) -> torch.device:
    """Where the call is computed."""
    for tensor in flatten_inputs(call).values():
        return tensor.device
    raise TraceError(f"{type(module).__name__} cannot be compiled for a call without a tensor")


def shapes_of(call: Call) -> str:
    """How reports name the call."""
    return " ".join("x".join(map(str, tensor.shape)) for tensor in flatten_inputs(call).values())


def fits(dims: Mapping[str, Any], call: Call) -> bool:
    try:
        measure(flatten_dims(dims), flatten_inputs(call))
    except SizeError:
        return False
    return True


def check_evaluates(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if part.training:
            what = f"{type(module).__name__}.{name}".removesuffix(".")
            raise ValueError(f"{what} is in training mode, in which nothing is compiled: call module.eval() first")


def check_example(module: nn.Module, example: Call, bindings: Mapping[str, str], dims: Mapping[str, Any]) -> None:
    """ValueError where bindings or dims speak of other inputs than these."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = (parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD)
    inputs = list(dict.fromkeys((*named, *example)))
    known = {*inputs, *flatten_inputs(example)}
    for what, names in (("bindings", bindings), ("dims", dims)):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{what} names {name!r}, which is no input of {type(module).__name__}; "
                    f"its inputs are {', '.join(inputs)}"
                )
    measure(flatten_dims(dims), flatten_inputs(example))
