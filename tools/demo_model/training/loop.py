"""The machinery that every training stage shares: clock, optimizer with fp32 masters, CUDA graphs, saved state."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
LOG_SECONDS = 5.0


class Clock:
    """Wall-clock seconds of the whole plan."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def resume(self, elapsed: float) -> None:
        self._start = time.monotonic() - elapsed


class Budget:
    """A stage's share of the clock; it has an absolute end, so a slow stage never delays the last one."""

    def __init__(self, clock: Clock, end: float) -> None:
        self.clock = clock
        self.start, self._end = clock.elapsed, end * clock.seconds

    def resume(self, elapsed: float, start: float) -> None:
        self.clock.resume(elapsed)
        self.start = start

    @property
    def fraction(self) -> float:
        """0 at the stage's start, 1 at its end."""
        return min((self.clock.elapsed - self.start) / max(self._end - self.start, 1e-3), 1.0)

    @property
    def seconds_left(self) -> float:
        return self._end - self.clock.elapsed

    @property
    def over(self) -> bool:
        return self.seconds_left <= 0


class Progress:
    """One line a few seconds apart: a bar where a person watches, plain lines in a log."""

    def __init__(self, stage: str) -> None:
        self._stage, self._last = stage, time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= LOG_SECONDS

    def show(self, fraction: float, text: str) -> None:
        self._last = time.monotonic()
        filled = min(int(fraction * 30), 30)
        bar = "#" * filled + "." * (30 - filled)
        end = "\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"{self._stage:12s} [{bar}] {fraction:4.0%} {text}{end}")
        sys.stderr.flush()


class Trainer:
    """AdamW on fp32 masters; the networks themselves run in `dtype`. Keeps an average of the weights (EMA)."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        rate: float,
        dtype: torch.dtype,
        average: float = 0.998,
        decay: float = 1e-3,
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
        self._good: list[Tensor] = [m.clone() for m in self.masters]

    def set_rate(self, fraction: float, step: int, *, hold: float = 0.5, warm_up: int = 100) -> None:
        """Linear warm-up, flat until `hold`, then a half cosine to 2 %."""
        fall = max(0.0, min(1.0, (fraction - hold) / (1 - hold)))
        shape = 0.5 * (1 + math.cos(math.pi * fall)) * 0.98 + 0.02
        self.rate.fill_(self.peak * shape * min(1.0, (step + 1) / warm_up))

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def update(self) -> None:
        """One step from the gradients in `parameters`: capturable, no wait for the device."""
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        held = [m.grad for m in self.masters]
        torch._foreach_copy_(held, grads)
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.optimizer.step()
        torch._foreach_copy_([p.data for p in self.parameters], self.masters)
        torch._foreach_lerp_(self.average, self.masters, 1 - self._keep)

    @torch.no_grad()
    def check(self, loss: float) -> None:
        """Keeps the weights of a finite moment, or goes back to them at half the rate."""
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
        torch._foreach_copy_([p.data for p in self.parameters], self.masters)
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate


class GraphedStep:
    """Runs `step(*inputs) -> loss` as one CUDA graph after three eager steps; eager elsewhere or when capture fails.

    These networks are narrow, so launching kernels one by one would take longer than running them.
    """

    def __init__(self, step: Callable[..., Tensor], clear: Callable[[], None], pool: object | None = None) -> None:
        self._step, self._clear, self._pool = step, clear, pool
        self._calls, self._failed = 0, False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._loss: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not inputs[0].is_cuda or self._failed:
            return self._eager(*inputs)
        if self._graph is None:
            self._calls += 1
            if self._calls <= 3:
                return self._eager(*inputs)
            self._capture(inputs)
            if self._graph is None:
                return self._eager(*inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._graph.replay()
        assert self._loss is not None
        return self._loss

    def _eager(self, *inputs: Tensor) -> Tensor:
        self._clear()
        stream = torch.cuda.Stream() if inputs[0].is_cuda else None
        if stream is None:
            return self._step(*inputs)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            loss = self._step(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return loss

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(t.clone() for t in inputs)
        self._clear()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._loss = self._step(*self._inputs)
        except RuntimeError as error:
            logger.warning("CUDA graph capture failed, going on without: %s", error)
            self._failed = True
            self._clear()
            torch.cuda.synchronize()
            return
        self._graph = graph


class StateFile:
    """What a stage needs to go on after an interruption, written atomically."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last >= SAVE_SECONDS

    def save(self, state: dict[str, object]) -> None:
        self._last = time.monotonic()
        temporary = self._path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self._path)

    def load(self, device: torch.device) -> dict[str, object] | None:
        return torch.load(self._path, map_location=device, weights_only=True) if self._path.exists() else None

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def random_state(device: torch.device) -> dict[str, Tensor]:
    return {
        "cpu": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}),
    }


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def run_stage(
    name: str,
    trainer: Trainer,
    budget: Budget,
    state: StateFile,
    saved: dict[str, object] | None,
    batch: Callable[[float, int], Tensor],
    *,
    describe: Callable[[float], str] = "loss {:.4f}".format,
    every: Callable[[float], None] | None = None,
) -> None:
    """Steps `batch(fraction, step)` until the budget is over: saves, reports, guards; leaves the averaged weights."""
    device = trainer.masters[0].device
    step = 0
    if saved is not None:
        trainer.load_state_dict(saved["trainer"])  # type: ignore[arg-type]
        restore_random_state(saved["random"], device)  # type: ignore[arg-type]
        step = int(saved["step"])  # type: ignore[call-overload]
        budget.resume(*saved["clock"])  # type: ignore[misc]
    progress = Progress(name)
    loss = torch.zeros(())
    while not budget.over:
        fraction = budget.fraction
        trainer.set_rate(fraction, step)
        loss = batch(fraction, step)
        step += 1
        if progress.due or step == 1:
            value = float(loss)
            trainer.check(value)
            progress.show(fraction, f"{budget.clock.elapsed:.0f}s step {step} {describe(value)}")
        if state.due:
            clock = (budget.clock.elapsed, budget.start)
            random = random_state(device)
            state.save({"trainer": trainer.state_dict(), "random": random, "step": step, "clock": clock})
        if every is not None:
            every(fraction)
    progress.show(1.0, f"{budget.clock.elapsed:.0f}s step {step} {describe(float(loss))}")
    trainer.finish()
