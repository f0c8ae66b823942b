"""StableFastPatcher: puts the compiled runner in front of a ModelPatcher's network, and removes it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import nn

from modules.core.runner import RunnerFor
from modules.stable_fast.config import Level, StableFastConfig
from modules.stable_fast.runtime.capture_table import CaptureOn
from modules.stable_fast.unet_runner import StableFastRunner


class Patchable(Protocol):
    """The parts of a ModelPatcher that the patcher needs: its network, clones, and a callback for changed weights."""

    module: nn.Module

    def clone(self) -> Any: ...

    def set_unet_function_wrapper(self, wrapper: RunnerFor | None) -> None: ...

    @property
    def on_weights_changed(self) -> list[Callable[[set[str]], None]]: ...


Model = TypeVar("Model", bound=Patchable)


class StableFastPatcher:
    """Keeps one compiled runner as long as the same network is patched. Patching another network frees the runner."""

    def __init__(self, config: StableFastConfig | None = None, capture_on: CaptureOn | None = None) -> None:
        self.config = config or StableFastConfig()
        self._capture_on = capture_on
        self.runner: StableFastRunner | None = None
        self._network: nn.Module | None = None
        self._listeners: list[Callable[[set[str]], None]] | None = None

    def apply(self, model: Model) -> Model:
        """A clone of the model whose UNet runs through Stable-Fast. Nothing is compiled before the first step."""
        patched: Model = model.clone()
        if Level(self.config.level).is_off:
            return patched
        if self._network is not model.module:
            self._take(model)
        patched.set_unet_function_wrapper(self._wrapper)
        return patched

    def release(self) -> None:
        """Frees everything compiled and stops listening to the model."""
        if self.runner is None or self._listeners is None:
            return
        self._listeners.remove(self.runner.refresh_weights)
        self.runner.release()
        self.runner = self._network = self._listeners = None

    def _take(self, model: Patchable) -> None:
        self.release()
        self._network = model.module
        self.runner = StableFastRunner(model.module, self.config, self._capture_on)
        self._listeners = model.on_weights_changed
        self._listeners.append(self.runner.refresh_weights)

    def _wrapper(self, network: nn.Module) -> StableFastRunner:
        """The ModelPatcher calls this to get its runner."""
        if self.runner is None or network is not self._network:
            raise RuntimeError("this patched model was released; apply Stable-Fast to it again")
        return self.runner
