"""The node "Stable-Fast" of ComfyUI. It routes the UNet's calls of a MODEL to its compiled network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from integrations.comfyui.network import FastNetwork
from modules.stable_fast import LEVELS

UNLOADED = "on_detach_after"  # ComfyUI's own names of the moments
UNET_CALL = "diffusion_model"
OURS = "stable_fast"  # our key among the callbacks and wrappers of other nodes


class StableFast:
    """MODEL in, MODEL out. All MODELs of one checkpoint share a compiled network at each level."""

    CATEGORY = "advanced/model"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "accelerate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        levels = [str(level) for level in reversed(LEVELS)]
        return {"required": {"model": ("MODEL",), "level": (levels, {"default": "full"})}}

    def accelerate(self, model: Any, level: str) -> tuple[Any]:
        """A clone of the MODEL that calls the compiled network. The given MODEL stays as it is."""
        fast = model.clone()
        network = shared_network(fast.model, level)
        fast.set_model_unet_function_wrapper(UNetWrapper(network, model.model_options.get("model_function_wrapper")))
        fast.add_callback_with_key(UNLOADED, OURS, lambda *_: network.release())
        return (fast,)


class UNetWrapper:
    """ComfyUI's own `apply_model` with one more wrapper inside, right around the UNet.

    A wrapper that another node had set before stays in force, outside this one.
    """

    def __init__(self, network: FastNetwork, outer: Callable[..., Tensor] | None) -> None:
        self._network = network
        self._outer = outer

    def __call__(self, apply_model: Callable[..., Tensor], call: Mapping[str, Any]) -> Tensor:
        """The denoised latents. `call` holds "input" and "timestep" of one batch and its conditioning "c"."""
        call = {**call, "c": {**call["c"], "transformer_options": self._options(call["c"])}}
        if self._outer is not None:
            return self._outer(apply_model, call)
        return apply_model(call["input"], call["timestep"], **call["c"])

    def _options(self, conditioning: Mapping[str, Any]) -> dict[str, Any]:
        options = conditioning.get("transformer_options", {})
        wrappers = options.get("wrappers", {})
        around = {**wrappers.get(UNET_CALL, {}), OURS: [self._network]}
        return {**options, "wrappers": {**wrappers, UNET_CALL: around}}


def shared_network(base: Any, level: str) -> FastNetwork:
    """The compiled network of ComfyUI's base model at this level, kept by the base model so that both go together."""
    networks: dict[str, FastNetwork] = vars(base).setdefault("_stable_fast_networks", {})
    return networks.setdefault(level, FastNetwork(base, level))
