"""The weights stage: values computed from parameters alone. They stay at fixed addresses and are refreshed in place.

A captured graph reads weights by address, so a refreshed value is copied into the storage of the old one. Values that
are views of a parameter (an already channels-last weight) need no copy, since they change with the parameter. The
store is shared by all programs of a module: equal expressions are computed and kept once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from modules.stable_fast.calibration.scales import Scales, is_scale
from modules.stable_fast.changes.adapters import PREFIX, has_adapters, is_lora, state_of, strength
from modules.stable_fast.graph.staging import Stage
from modules.stable_fast.precision import WEIGHTS_ONLY
from modules.stable_fast.runtime.addresses import Snapshot

aten = torch.ops.aten


class StaleWeightsError(RuntimeError):
    """A parameter was rebound to other memory or removed, which captured graphs cannot detect."""


@dataclass(frozen=True)
class Prepared:
    """One value of the weights stage, how to compute it, and the parameters it depends on."""

    node: fx.Node
    sources: Mapping[str, str]  # placeholder -> parameter
    parameters: frozenset[str]


class WeightStore:
    """Parameters of a module and everything computed from them alone, and scales of activations.

    If only weights are in eight bits, the module may lie elsewhere than on the `device` on which programs run. Then the
    parameters that they read as they are have copies there.
    """

    def __init__(self, module: nn.Module, precision: str = "off") -> None:
        self.module = module
        self.device: torch.device | None = None  # None: wherever the module is
        self._may_be_away = precision.endswith(WEIGHTS_ONLY)
        self._copies: dict[str, Tensor] = {}
        self.scales = Scales(module, precision)
        self._prepared: dict[str, Prepared] = {}
        self._constants: dict[str, Tensor] = {}
        self.values: dict[str, Tensor] = {}
        self._addresses: dict[str, int] = {}
        self._checked: Snapshot | None = None
        self._strengths: dict[str, Tensor] = {}
        self._adapters = _adapters(module.named_modules(remove_duplicate=False))

    def parameter(self, name: str) -> Tensor:
        """A parameter or buffer. Its address is remembered and must not change."""
        owner, _, leaf = name.rpartition(".")
        part: Any = self.module
        for step in filter(None, owner.split(".")):
            part = getattr(part, step, None)
        return self._watched(name, part, leaf)

    def _watched(self, name: str, owner: Any, leaf: str) -> Tensor:
        # Not by getattr: a layer of PEFT around a linear layer still shows the weight under its old name.
        own: Mapping[str, Any] = vars(owner) if isinstance(owner, nn.Module) else {"_parameters": {}, "_buffers": {}}
        tensor = own["_parameters"].get(leaf)
        tensor = own["_buffers"].get(leaf) if tensor is None else tensor
        if tensor is None and leaf.startswith(PREFIX) and is_lora(owner):
            return self._strength(name, owner, leaf)
        if not isinstance(tensor, Tensor):
            raise StaleWeightsError(f"parameter {name} is gone: call refresh_weights()")
        if self._addresses.setdefault(name, tensor.data_ptr()) != tensor.data_ptr():
            raise StaleWeightsError(f"parameter {name} was rebound to other memory: call refresh_weights()")
        return tensor

    def _strength(self, name: str, layer: Any, leaf: str) -> Tensor:
        """The strength of an adapter as a tensor of this store, up to date."""
        if name not in self._strengths:
            self._strengths[name] = torch.zeros((), device=layer.base_layer.weight.device)
        return self._strengths[name].fill_(strength(layer, leaf))

    def watch_all(self) -> None:
        """Remembers the address of every parameter and buffer."""
        for name, _ in (*self.module.named_parameters(), *self.module.named_buffers()):
            self.parameter(name)

    def check_addresses(self) -> bool:
        """Whether the adapters of PEFT's layers changed since the last check, in any way but their weights.

        Raises StaleWeightsError if a parameter in use was rebound instead of written in place.
        """
        seen = self._checked
        # What PEFT changes in its layers shows only in a walk over all modules.
        if seen is not None and seen.count == len(self._addresses) and not self._adapters and seen.holds():
            return False
        # One walk over all modules: looking up each parameter by its path would take ten times as long.
        owners = dict(self.module.named_modules(remove_duplicate=False))
        for name in self._addresses:
            owner, _, leaf = name.rpartition(".")
            self._watched(name, owners.get(owner), leaf)
        self._checked = Snapshot(owners, self._addresses)
        before, self._adapters = self._adapters, _adapters(owners.items())
        return before != self._adapters

    def add(self, stage: Stage, sources: Mapping[str, str]) -> dict[str, str]:
        """Computes new values in a program's weights stage. Returns the store's key for each output of the stage."""
        output = next(iter(reversed(stage.graph.nodes)))
        keys: dict[fx.Node, str] = {}
        for node in stage.graph.nodes:
            if node.op != "output":
                keys[node] = _expression(node, keys, sources)
        wanted = dict(zip(stage.outputs, output.args[0], strict=True))
        fresh = {keys[node]: node for node in wanted.values() if keys[node] not in self._prepared}
        for key, node in fresh.items():
            self._prepared[key] = Prepared(node, sources, frozenset(_parameters(node, sources)))
        for group in self._by_parameters(fresh):
            self.values |= self._compute(group)
        return {name: keys[node] for name, node in wanted.items()}

    def keep_only(self, keys: Set[str]) -> None:
        """Frees the prepared values that no program uses any more."""
        self._prepared = {key: item for key, item in self._prepared.items() if key in keys}
        self.values = {key: value for key, value in self.values.items() if key in keys}

    def source(self, name: str) -> Tensor:
        """A parameter, buffer, constant or scale by its name in programs."""
        if is_scale(name):
            return self.scales.of(name)
        return self._constants[name] if name in self._constants else self.parameter(name)

    def come_to(self, device: torch.device) -> None:
        """Notes where programs run."""
        if self._may_be_away:
            self.device = device

    @property
    def is_away(self) -> bool:
        """Whether the module lies elsewhere than where its programs run, so that it cannot run eagerly there."""
        return self.device is not None and next(self.module.parameters()).device != self.device

    def here(self, name: str) -> Tensor:
        """A source where programs run. A copy keeps its address, and follows its source in `refresh`."""
        if name in self._copies:
            return self._copies[name]
        source = self.source(name).detach()
        moved = self._moved(source)
        if moved is not source:
            self._copies[name] = moved
        return moved

    def _moved(self, source: Tensor) -> Tensor:
        return source if self.device is None or source.device == self.device else source.to(self.device)

    def keep_constants(self, constants: Mapping[str, Tensor]) -> dict[str, str]:
        """Takes over tensors that a module made during tracing. Returns placeholder -> name in this store."""
        names = {placeholder: f"constant:{_digest(tensor)}" for placeholder, tensor in constants.items()}
        self._constants |= {names[placeholder]: tensor for placeholder, tensor in constants.items()}
        return names

    @torch.no_grad()
    def _compute(self, keys: Iterable[str]) -> dict[str, Tensor]:
        memo: dict[fx.Node, Any] = {}
        return {key: self._evaluate(self._prepared[key].node, self._prepared[key].sources, memo) for key in keys}

    def _evaluate(self, node: fx.Node, sources: Mapping[str, str], memo: dict[fx.Node, Any]) -> Any:
        if node in memo:
            return memo[node]
        if node.op == "placeholder":
            value = self._moved(self.source(sources[node.name]).detach())
        else:
            looked_up: Any = map_arg((node.args, node.kwargs), lambda source: self._evaluate(source, sources, memo))
            args, kwargs = looked_up
            function: Any = node.target
            value = stacked_view(*args) if node.target is aten.cat.default else None
            value = function(*args, **kwargs) if value is None else value
        memo[node] = value
        return value

    @torch.no_grad()
    def refresh(self, changed: set[str] | None = None) -> int:
        """Recomputes in place values that depend on changed parameters (None: all). Returns how many were written."""
        self.check_addresses()
        stale = [key for key, item in self._prepared.items() if changed is None or item.parameters & changed]
        for name, copy in self._copies.items():
            if changed is None or name in changed:
                copy.copy_(self.source(name))
        written = 0
        for keys in self._by_parameters(stale):
            for key, value in self._compute(keys).items():
                if value.data_ptr() != self.values[key].data_ptr():
                    write_over(self.values[key], value)
                    written += 1
        return written

    def _by_parameters(self, keys: Iterable[str]) -> Iterable[list[str]]:
        """The values in groups that share steps, such as quantisation, and whose steps fit into memory together."""
        groups: dict[frozenset[str], list[str]] = {}
        for key in keys:
            groups.setdefault(self._prepared[key].parameters, []).append(key)
        return groups.values()

    def owned_bytes(self) -> int:
        """Memory of prepared values, beyond the parameters themselves."""
        own = set(self._addresses.values())
        return sum(value.nbytes for value in self.values.values() if value.data_ptr() not in own)


def _adapters(parts: Iterable[tuple[str, nn.Module]]) -> dict[str, tuple[str, ...]]:
    return {path: state_of(part) for path, part in parts if has_adapters(part)}


def write_over(kept: Tensor, value: Tensor) -> None:
    """Copies `value` over `kept`, of the same shape. An expanded dimension is one entry in memory, written once."""
    for dim, stride in enumerate(kept.stride()):
        if stride == 0 and kept.shape[dim] > 1:
            kept, value = kept.narrow(dim, 0, 1), value.narrow(dim, 0, 1)
    kept.copy_(value)


def stacked_view(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    """The concatenation as a view, if the tensors are back to back in one piece of memory; else None."""
    first = tensors[0]
    end, total = first.data_ptr(), 0
    for tensor in tensors:
        alike = tensor.dtype == first.dtype and tensor.shape[1:] == first.shape[1:] and tensor.is_contiguous()
        same_memory = tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if dim or not alike or not same_memory or tensor.data_ptr() != end:
            return None
        end, total = end + tensor.nbytes, total + tensor.shape[0]
    return first.as_strided((total, *first.shape[1:]), first.stride())


def _digest(tensor: Tensor) -> str:
    data = bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).tolist())
    return f"{tensor.dtype}{tuple(tensor.shape)}{hashlib.sha256(data).hexdigest()}"


def _expression(node: fx.Node, keys: Mapping[fx.Node, str], sources: Mapping[str, str]) -> str:
    """A string that is equal for two nodes if and only if they compute the same from the same parameters."""
    if node.op == "placeholder":
        return sources[node.name]
    args = map_arg((node.args, node.kwargs), lambda source: _Key(keys[source]))
    return f"{node.target}{args!r}"


class _Key(str):
    """A key inside the string of another key."""

    __slots__ = ()


def _parameters(node: fx.Node, sources: Mapping[str, str]) -> set[str]:
    if node.op == "placeholder":
        return {sources[node.name]}
    return set().union(*(_parameters(source, sources) for source in node.all_input_nodes))
