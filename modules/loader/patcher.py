"""Merges weight patches (LoRA and similar) into a network in place, and restores the original weights bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from modules.core.device import free_memory
from modules.core.runner import RunnerFor
from modules.loader.visit import visiting

OnWeightsChanged = Callable[[set[str]], None]

# Copies of patched weights stay on the GPU if its free memory is this many times as large, so that switching LoRAs
# needs no transfers over the bus. Otherwise the copies go to the CPU.
ROOM_FOR_COPIES = 4


@runtime_checkable
class WeightPatch(Protocol):
    """One change to one weight. `slice` limits the change to (dimension, start, length) of a packed weight."""

    @property
    def slice(self) -> tuple[int, int, int] | None: ...

    def apply(self, weight: Tensor, strength: float) -> Tensor:
        """Returns the changed weight; takes and returns fp32, and must not modify its argument."""
        ...


class _Entry:
    """A patch with its strength; equal only for the same patch object, which is kept alive to keep its id unique."""

    __slots__ = ("patch", "strength")

    def __init__(self, patch: WeightPatch, strength: float) -> None:
        self.patch = patch
        self.strength = strength

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Entry) and self.patch is other.patch and self.strength == other.strength

    def __hash__(self) -> int:
        return hash((id(self.patch), self.strength))


@dataclass
class _MergedState:
    """The patches currently merged into a module; all clones share this object, since they share the module."""

    merged: dict[str, tuple[_Entry, ...]] = field(default_factory=dict)
    pristine: dict[str, Tensor] = field(default_factory=dict)
    listeners: list[OnWeightsChanged] = field(default_factory=list)
    is_sparing: bool = False  # copies and patches stay off the GPU


class ModelPatcher:
    """A network and the patches requested for it. Clones share the network and storage, but have separate requests."""

    def __init__(self, module: nn.Module, load_device: torch.device | str) -> None:
        self.module = module
        self.load_device = torch.device(load_device)
        self.unet_function_wrapper: RunnerFor | None = None
        self._wanted: dict[str, tuple[_Entry, ...]] = {}
        self._state = _MergedState()

    @property
    def on_weights_changed(self) -> list[OnWeightsChanged]:
        """Callbacks that receive the names of rewritten weights; clones share this list."""
        return self._state.listeners

    def clone(self) -> ModelPatcher:
        twin = ModelPatcher(self.module, self.load_device)
        twin.unet_function_wrapper = self.unet_function_wrapper
        twin._wanted = dict(self._wanted)
        twin._state = self._state
        return twin

    def set_unet_function_wrapper(self, wrapper: RunnerFor | None) -> None:
        """Sets the function that creates the network's runner, such as Stable-Fast's; None means eager mode."""
        self.unet_function_wrapper = wrapper

    def add_patches(self, patches: Mapping[str, Iterable[WeightPatch]], strength: float) -> None:
        """Adds patches by weight name after those already requested; no weights change before `apply()`."""
        known = dict(self.module.named_parameters())
        for name in patches:
            if name not in known:
                raise KeyError(f"{type(self.module).__name__} has no weight {name} to patch")
        if strength == 0:
            return
        for name, additions in patches.items():
            entries = tuple(_Entry(patch, strength) for patch in additions)
            if entries:
                self._wanted[name] = self._wanted.get(name, ()) + entries

    def apply(self) -> None:
        """Gives the module exactly this clone's patches, regardless of which clone was applied before."""
        self._merge(self._wanted)

    @contextmanager
    def at_work(self, part: str) -> Iterator[nn.Module]:
        """Brings the named part of an absent network to `load_device` for the block, with this clone's patches."""
        self.restore()
        prefix, network = f"{part}.", self.module.get_submodule(part)
        with visiting(network, self.load_device) as homes:
            self._state.pristine |= {prefix + name: home for name, home in homes.items()}
            try:
                self._merge({name: entries for name, entries in self._wanted.items() if name.startswith(prefix)})
                yield network
            finally:  # the weights at home have no patches
                self._state.merged.clear()
                self._state.pristine.clear()

    def leave(self) -> None:
        """Moves the network, without patches, to the computer's memory. From now on it must be `at_work` to work."""
        self.restore()
        self.module.to("cpu")

    def spare_memory(self) -> None:
        """Keeps the copies of patched weights, and new patches, in the computer's memory from now on."""
        self._state.is_sparing = True
        self._state.pristine |= {name: copy.cpu() for name, copy in self._state.pristine.items()}

    @property
    def patch_device(self) -> torch.device:
        """Where to keep patches until they are merged."""
        return torch.device("cpu") if self._state.is_sparing else self.load_device

    def pristine(self) -> dict[str, Tensor]:
        """Returns every weight as loaded, regardless of merged patches; callers must not modify these tensors."""
        weights = self.module.named_parameters()
        return {name: self._state.pristine.get(name, weight.detach()) for name, weight in weights}

    def restore(self) -> None:
        """Restores every patched weight exactly as it was loaded."""
        self._merge({})

    @torch.no_grad()
    def _merge(self, wanted: dict[str, tuple[_Entry, ...]]) -> None:
        state = self._state
        changed = {name for name in wanted.keys() | state.merged.keys() if wanted.get(name) != state.merged.get(name)}
        if not changed:
            return
        weights = dict(self.module.named_parameters())
        fresh = {name: weights[name].detach() for name in changed if name not in state.pristine}
        home = torch.device("cpu") if state.is_sparing else _home_of_copies(fresh.values())
        for name in changed:
            weight = weights[name]
            if name in fresh:
                state.pristine[name] = fresh[name].to(home or weight.device, copy=True)
            pristine = state.pristine[name]
            entries = wanted.get(name, ())
            # Recorded before writing: if a patch fails, the next call still knows that this weight is not pristine.
            state.merged[name] = ()
            weight.copy_(_patched(pristine, entries, self.load_device) if entries else pristine)
            if entries:
                state.merged[name] = entries
            else:
                del state.merged[name], state.pristine[name]
        for listener in state.listeners:
            listener(changed)


def _home_of_copies(weights: Collection[Tensor]) -> torch.device | None:
    """Chooses the device for copies; None means that each copy stays on its weight's device."""
    device = next((weight.device for weight in weights), None)
    if device is None or device.type == "cpu":
        return None
    needed = sum(weight.numel() * weight.element_size() for weight in weights)
    return None if ROOM_FOR_COPIES * needed <= free_memory(device) else torch.device("cpu")


def _patched(pristine: Tensor, entries: tuple[_Entry, ...], device: torch.device) -> Tensor:
    """Merges in fp32, so that the weight is rounded only once, regardless of the number of patches."""
    # Moved in its own dtype, which halves the transfer; for an fp32 network this may be the pristine copy itself.
    weight = pristine.to(device).to(torch.float32, copy=any(entry.patch.slice for entry in entries))
    for entry in entries:
        if entry.patch.slice is None:
            weight = entry.patch.apply(weight, entry.strength)
        else:
            area = weight.narrow(*entry.patch.slice)
            area.copy_(entry.patch.apply(area, entry.strength))
    return weight
