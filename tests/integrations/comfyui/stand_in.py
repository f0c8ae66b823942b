"""What the node uses of ComfyUI, in small: a MODEL with clones and callbacks, its base model, and a UNet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """A network with the arguments of ComfyUI's UNet. Like it, it takes residuals from the end of each list."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.text, self.time, self.label = nn.Linear(6, 8), nn.Linear(1, 8), nn.Linear(5, 8)
        self.leave = nn.Conv2d(8, 4, 3, padding=1)

    def forward(
        self,
        x,
        timesteps=None,
        context=None,
        y=None,
        control=None,
        transformer_options={},  # noqa: B006 (as in ComfyUI)
        **kwargs,
    ) -> Tensor:
        wrappers = [
            one for some in transformer_options.get("wrappers", {}).get("diffusion_model", {}).values() for one in some
        ]
        return Executor(self._forward, wrappers, 0).execute(x, timesteps, context, y, control, transformer_options)

    def _forward(self, x, timesteps, context, y, control, transformer_options) -> Tensor:
        control = control or {}
        emb = self.time(timesteps[:, None] / 1000) + self.text(context).mean(1)
        if y is not None:
            emb = emb + self.label(y)
        h = self.enter(x) + emb[:, :, None, None]
        for patch in transformer_options.get("patches", {}).get("input_block_patch", []):
            h = patch(h)
        low = self.down(h).tanh()
        for group, value in (("output", low), ("output", h), ("middle", h)):
            if control.get(group):
                residual = control[group].pop()
                value += 0 if residual is None else residual
        return self.leave(h + nn.functional.interpolate(low, scale_factor=2))


class Executor:
    """Calls wrappers in order, then the original."""

    def __init__(self, original: Callable[..., Tensor], wrappers: list[Any], idx: int) -> None:
        self.original, self.wrappers, self.idx = original, wrappers, idx

    def execute(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.idx == len(self.wrappers):
            return self.original(*args, **kwargs)
        return self.wrappers[self.idx](self, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return Executor(self.original, self.wrappers, self.idx + 1).execute(*args, **kwargs)


class BaseModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.diffusion_model = UNet().eval().requires_grad_(False)
        self.current_weight_patches_uuid: Any = 0
        self.model_lowvram = False
        self.current_patcher: Any = None

    def apply_model(self, x, t, c_crossattn, y=None, control=None, transformer_options={}) -> Tensor:  # noqa: B006
        """ComfyUI's maths around the network, in small."""
        noise = self.diffusion_model(
            x * 0.5, t, context=c_crossattn, y=y, control=control, transformer_options=transformer_options
        )
        return x - noise


class Model:
    """A MODEL, ComfyUI's ModelPatcher."""

    def __init__(self, base: BaseModel) -> None:
        self.model = base
        self.model_options: dict[str, Any] = {}
        self.callbacks: list[tuple[str, Callable[..., None]]] = []

    def clone(self) -> Model:
        clone = Model(self.model)
        clone.model_options, clone.callbacks = copy.deepcopy(self.model_options), copy.copy(self.callbacks)
        return clone

    def set_model_unet_function_wrapper(self, wrapper: Callable[..., Tensor]) -> None:
        self.model_options["model_function_wrapper"] = wrapper

    def add_callback_with_key(self, moment: str, key: str, callback: Callable[..., None]) -> None:
        self.callbacks.append((moment, callback))

    def unload(self) -> None:
        for moment, callback in self.callbacks:
            if moment == "on_detach_after":
                callback(self, True)

    def step(self, rows: int = 2, size: int = 8, **conditioning: Any) -> Tensor:
        """One call as ComfyUI's sampler makes it, always with the same random inputs."""
        draw = torch.Generator().manual_seed(rows + size)
        x, context = (torch.randn(shape, generator=draw) for shape in ((rows, 4, size, size), (rows, 7, 6)))
        t, c = torch.full((rows,), 500.0), {"c_crossattn": context, "transformer_options": {}, **conditioning}
        wrapper = self.model_options.get("model_function_wrapper")
        if wrapper is None:
            return self.model.apply_model(x, t, **c)
        return wrapper(self.model.apply_model, {"input": x, "timestep": t, "c": c, "cond_or_uncond": [0, 1]})
