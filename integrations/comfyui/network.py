"""ComfyUI's UNet as Stable-Fast compiles it: residuals of ControlNets as single inputs, weights followed."""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from modules.stable_fast import CompiledModule

log = logging.getLogger(__name__)

BINDINGS = {"x": "latent", "timesteps": "time", "context": "prompt", "y": "prompt"}
DIMS: dict[str, tuple[str | None, ...]] = {
    "x": ("batch", None, "8*height", "8*width"),
    "timesteps": ("batch",),
    "context": ("batch", "tokens", None),
    "y": ("batch", None),
}
GROUPS = ("input", "middle", "output")  # where ComfyUI adds residuals
UNET_INPUTS = ["x", "timesteps", "context", "y", "control", "transformer_options", "kwargs"]
CHANGES_UNET = ("patches", "patches_replace", "optimized_attention_override")

Control = Mapping[str, list[Tensor | None]]


class FlatUNet(nn.Module):
    """ComfyUI's UNet with each residual of a ControlNet as an input of its own, such as `output_03`. None is a gap."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None, y: Tensor | None, **residuals: Tensor | None
    ) -> Tensor:
        """The UNet's output, of the shape of x. The network itself takes residuals from the end of each list."""
        control: dict[str, list[Tensor | None]] = {}
        for name, residual in sorted(residuals.items()):
            control.setdefault(name.rsplit("_", 1)[0], []).append(residual)
        return self.unet(x, timesteps, context, y, control=control or None, transformer_options={})


class FastNetwork:
    """The UNet of one base model, compiled at its first call. What cannot be compiled runs eagerly, with its reason."""

    def __init__(self, base: Any, level: str) -> None:
        self._base = weakref.ref(base)  # the base model keeps this object
        self._level = level
        self._dims = dict(DIMS)
        self._compiled: CompiledModule | None = None
        self._weights: object = None
        self._told: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> FastNetwork:
        """Itself. ComfyUI copies a MODEL's options whenever it clones the MODEL, and clones share the network."""
        return self

    @property
    def compiled(self) -> CompiledModule | None:
        """The compiled network, None until the first call."""
        return self._compiled

    def release(self) -> None:
        """Frees programs, prepared weights and graphs. ComfyUI has unloaded the model."""
        if self._compiled is not None:
            self._compiled.release()

    def __call__(self, executor: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """One call of the UNet. `executor` runs what is inside this wrapper: other wrappers, or the UNet itself."""
        reason = self._why_eager(executor, args, kwargs)
        if reason:
            self._tell(reason)
            return executor(*args, **kwargs)
        x, timesteps, context, y, control = args[:5]
        residuals = residuals_of(control or {})
        compiled = self._following(x, residuals)
        return compiled(x=x, timesteps=timesteps, context=context, y=y, **residuals)

    def _why_eager(self, executor: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        base = self._base()
        if base is None or list(inspect.signature(base.diffusion_model.forward).parameters) != UNET_INPUTS:
            return "this is not a UNet of Stable Diffusion"
        if len(executor.wrappers) > executor.idx + 1:
            return "another node's wrapper changes the UNet"
        changed = [name for name in CHANGES_UNET if args[5].get(name)]
        if changed:
            return f"another node changes the UNet by {' and '.join(changed)}"
        further = [name for name, value in kwargs.items() if value is not None]
        if further:
            return f"the UNet has further inputs: {', '.join(further)}"
        if base.model_lowvram:
            return "part of the UNet is kept off the GPU to save memory"
        if base.current_patcher is not None and base.current_patcher.current_hooks is not None:
            return "hooks change weights within a picture"
        return ""

    def _following(self, x: Tensor, residuals: Mapping[str, Tensor | None]) -> CompiledModule:
        """The compiled network with sizes named for these residuals, and with the weights now loaded."""
        base = self._base()
        assert base is not None
        dims = self._dims | {name: residual_dims(some, x) for name, some in residuals.items() if some is not None}
        if self._compiled is None or dims != self._dims:
            self.release()
            unet = FlatUNet(base.diffusion_model).eval()
            self._compiled = CompiledModule(unet, BINDINGS, dims, level=self._level, proves_sizes=True)
        elif base.current_weight_patches_uuid != self._weights:
            self._compiled.refresh_weights()  # other LoRAs, or another strength
        self._dims, self._weights = dims, base.current_weight_patches_uuid
        return self._compiled

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            log.warning("Stable-Fast runs the UNet eagerly: %s.", reason)


def residuals_of(control: Control) -> dict[str, Tensor | None]:
    """Residuals by name. Their names sort in the order of each list."""
    return {
        f"{group}_{place:02d}": residual for group in GROUPS for place, residual in enumerate(control.get(group, []))
    }


def residual_dims(residual: Tensor, x: Tensor) -> tuple[str | None, ...]:
    """Names for the sizes of a residual, whose resolution is that of x divided by 1, 2, 4 or 8."""
    batch = "batch" if residual.shape[0] == x.shape[0] else None
    ratio = x.shape[2] // residual.shape[2]
    factor = 8 // ratio if ratio in (1, 2, 4, 8) else None
    if factor is None or residual.shape[2] * ratio != x.shape[2] or residual.shape[3] * ratio != x.shape[3]:
        return (batch, None, None, None)
    return (batch, None, f"{factor}*height", f"{factor}*width")
