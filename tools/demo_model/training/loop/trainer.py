"""Trains by AdamW with fp32 master weights, an average of the weights, and a rollback if the loss is not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tools.demo_model.training.eight_bits import rounded

logger = logging.getLogger(__name__)


class Trainer:
    """AdamW on fp32 masters; the networks themselves run in `dtype`. Keeps an average of the weights (EMA).

    The parameters in `coarse` are to be stored in 8 bits: the networks see them rounded, and so learn to live with it.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        rate: float,
        dtype: torch.dtype,
        average: float = 0.998,
        decay: float = 1e-3,
        coarse: Sequence[nn.Parameter] = (),
    ) -> None:
        self.parameters = parameters
        self.peak = rate
        self._keep = average
        self.masters = [p.detach().float().clone() for p in parameters]
        for parameter in parameters:
            parameter.data = parameter.data.to(dtype)
        self.average = [m.clone() for m in self.masters]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        self.rate = torch.tensor(0.0, device=self.masters[0].device)
        cuda = self.masters[0].is_cuda
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=self.rate, betas=(0.9, 0.98), weight_decay=decay, fused=True, capturable=cuda
        )
        seen_rounded = {id(parameter) for parameter in coarse}
        pairs = zip(self.parameters, self.masters, strict=True)
        self._rounded = [(parameter, master) for parameter, master in pairs if id(parameter) in seen_rounded]
        self._good: list[Tensor] = [m.clone() for m in self.masters]

    def set_rate(self, fraction: float, step: int, *, hold: float = 0.5, warm_up: int = 100) -> None:
        """Sets the learning rate: linear warm-up, flat until `hold`, then a half cosine to 2 %."""
        fall = max(0.0, min(1.0, (fraction - hold) / (1 - hold)))
        shape = 0.5 * (1 + math.cos(math.pi * fall)) * 0.98 + 0.02
        self.rate.fill_(self.peak * shape * min(1.0, (step + 1) / warm_up))

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def update(self) -> None:
        """Takes one step from the gradients in `parameters`; can be captured, and never waits for the device."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        held = [m.grad for m in self.masters]
        torch._foreach_copy_(held, grads)
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.optimizer.step()
        self._show()
        torch._foreach_lerp_(self.average, self.masters, 1 - self._keep)

    def _show(self) -> None:
        """Copies the masters into the networks."""
        torch._foreach_copy_([p.data for p in self.parameters], self.masters)
        for parameter, master in self._rounded:
            parameter.data.copy_(rounded(master))

    @torch.no_grad()
    def check(self, loss: float) -> None:
        """Saves the weights if the loss is finite; otherwise restores the saved weights and halves the rate."""
        if math.isfinite(loss):
            torch._foreach_copy_(self._good, self.masters)
            return
        logger.warning("The loss is no longer finite: back to the last good weights at half the learning rate.")
        for group in (self.masters, self.average, [p.data for p in self.parameters]):
            torch._foreach_copy_(group, self._good)
        for state in self.optimizer.state.values():
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()
        self.peak *= 0.5

    @torch.no_grad()
    def finish(self) -> None:
        """Leaves the averaged weights in the networks, in fp32."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.grad = None
            parameter.data = average.clone()

    def state_dict(self) -> dict[str, object]:
        return {
            "masters": self.masters,
            "average": self.average,
            "peak": self.peak,
            "optimizer": self.optimizer.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, object]) -> None:
        self.peak = state["peak"]  # type: ignore[assignment]
        torch._foreach_copy_(self.masters, state["masters"])  # type: ignore[arg-type]
        torch._foreach_copy_(self._good, self.masters)
        torch._foreach_copy_(self.average, state["average"])  # type: ignore[arg-type]
        self._show()
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
