"""What has to hold so that a network's call may run compiled: its mode, its hooks, and the kinds of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from modules.stable_fast.changes.fingerprint import ForwardFront


def depends_on_mode(part: nn.Module) -> bool:
    """Whether a module computes something else in training mode: some networks of diffusers are never put out of it."""
    if hasattr(part, "track_running_stats"):  # all batch and instance norms
        return True
    return type(part).__name__.endswith("Dropout") and getattr(part, "p", 1) > 0


def why_not_now(network: nn.Module) -> str:
    """Why one call has to run eagerly; "" if it need not."""
    if network.training:
        return "it is in training mode"
    if torch.is_grad_enabled():
        return "gradients are on"
    if torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"):
        return "it runs under autocast"
    return ""


def why_not_this_picture(network: nn.Module) -> str:
    """Why calls have to run eagerly until the network changes; "" if they need not. Once a picture, so it is quick."""
    if vars(network)["_forward_hooks"] or vars(network)["_forward_pre_hooks"]:
        return "it has hooks"
    waiting = [network]
    while waiting:
        part = waiting.pop()
        own = vars(part)
        if "_hf_hook" in own or getattr(own.get("_diffusers_hook"), "hooks", None):  # diffusers' list may be empty
            return "its weights are offloaded, or hooks change its calls"
        if own.get("merged_adapters") and own.get("_disable_adapters"):
            return "a LoRA is merged and off: PEFT takes it out of the weights during the call"
        may_be_foreign = "forward" in own or own["_forward_hooks"] or own["_forward_pre_hooks"]  # most have none
        if may_be_foreign and has_foreign_code(part):
            return f"another program put a hook or a forward of its own on its {type(part).__name__}"
        waiting += [each for each in own["_modules"].values() if each is not None]
    return ""


def has_foreign_code(part: nn.Module) -> bool:
    """Whether a part has hooks that are not PyTorch's or transformers', or another forward than its class's.

    They may depend on what cannot be seen from here.
    """
    own = vars(part)
    if not is_own_forward(own.get("forward"), part):
        return True
    hooks = (*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values())
    return any(not (getattr(hook, "__module__", None) or "").startswith(("torch.", "transformers.")) for hook in hooks)


def is_own_forward(forward: Any, part: nn.Module) -> bool:
    """Whether a module's attribute `forward` is missing, or the method of its class as copies hold it, or a front."""
    if forward is None or isinstance(forward, ForwardFront):
        return True
    return getattr(forward, "__self__", None) is part and forward.__func__ is type(part).forward


def hidden_tensors(call: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Why a call with tensors in containers of unknown kinds has to run eagerly; "" without such tensors."""
    leaves: list[Any] = pytree.tree_leaves(dict(call))
    if sum(isinstance(leaf, Tensor) for leaf in leaves) == len(tensors):
        return "" if tensors else "it is called without a tensor"
    names = [name for name, value in call.items() if isinstance(value, Mapping)]
    return f"it takes tensors inside {' and '.join(names) or 'an object'}"
