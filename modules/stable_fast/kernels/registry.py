"""Registers an op under torch.ops.lightdiffusion, and runs the implementation that was chosen for a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modules.core.device import raise_if_broken
from modules.stable_fast.kernels.candidates import Implementations
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, ImplementationChoices
from modules.stable_fast.kernels.refusals import NO_REFUSALS, REFUSALS

NAMESPACE = "lightdiffusion"
# Kept alive by this module: a Library unregisters its ops when it is garbage-collected.
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
# The name recorded when every implementation refused a call, so that plain PyTorch served it.
REFERENCE = "reference"


def on_its_device(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `implementation` on the device of its first operand as the current device.

    Triton, and the libraries that we call directly, launch on the current device.
    """

    def call(x: Tensor, *others: Any) -> Any:
        if not x.is_cuda or x.device.index == torch.cuda.current_device():
            return implementation(x, *others)
        with torch.cuda.device(x.device.index):
            return implementation(x, *others)

    return call


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Defines `lightdiffusion::<schema>`. `implementation` runs it on every device; `fake` gives shapes in a trace."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, on_its_device(implementation), "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)


def run_chosen(
    op: str,
    key: ChoiceKey,
    implementations: Implementations,
    chain: Sequence[str],
    args: tuple[Any, ...],
    reference: Callable[[], Any],
    choices: ImplementationChoices = CHOICES,
) -> Any:
    """Runs the implementation chosen for this key; if it refuses, those of `chain` in turn; at last, plain PyTorch.

    The first of the chain is the choice without tuning. The table of choices may come from another version, and no
    implementation is sure to serve a machine: for example, PyTorch for Windows has no flash attention.
    """
    chosen = choices.pick(op, key, implementations, chain[0], args)
    for name in dict.fromkeys((chosen, *chain)):
        if (op, key, name) in choices.refused or name not in implementations:
            continue
        choices.used[op, key] = name
        try:
            return implementations[name](*args)
        except NO_REFUSALS:
            raise
        except REFUSALS as error:
            raise_if_broken()
            choices.refuse(op, key, name, error)
    choices.used[op, key] = REFERENCE
    return reference()
