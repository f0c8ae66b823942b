"""A program at actual sizes. It keeps results that do not change from step to step, and runs the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.graph.staging import PROMPT, ROWS, SHARED, STEP, TIME
from modules.stable_fast.runtime.program import Program, Values

NO_GRAPHS = "CUDA graphs need an NVIDIA GPU"
# A replay draws new numbers only from the GPU's default generator; numbers drawn on the CPU would be frozen.
DRAWS = "it draws random numbers, which a CUDA graph may freeze"
ROW_ALIGNMENT = 64  # elements, so that each vector of a packed row allows vectorised loads


class TimeTable:
    """The time stage's results for many timesteps, packed so that one copy passes a whole row to a captured graph."""

    def __init__(self, program: Program, actual: Mapping[str, int]) -> None:
        self._program = program
        self._actual = dict(actual)
        self._rows: dict[float, dict[torch.dtype, Tensor]] = {}
        self._places: dict[str, tuple[torch.dtype, int, tuple[int, ...]]] = {}

    def extend(self, timesteps: Sequence[float], device: torch.device) -> None:
        """Evaluates the time stage for all new timesteps (fp32) at once."""
        new = [timestep for timestep in dict.fromkeys(timesteps) if timestep not in self._rows]
        names = self._program.inputs_at("time")
        if not new or not names:
            return
        stage = self._program.function(TIME, {**self._actual, ROWS: len(new)})
        inputs = {name: torch.tensor(new, dtype=torch.float32, device=device) for name in names}
        results = {**self._direct(inputs), **stage({**self._program.constants(TIME), **inputs})}
        packed = self._pack(results, len(new))
        for index, timestep in enumerate(new):
            self._rows[timestep] = {dtype: table[index] for dtype, table in packed.items()}

    def _direct(self, inputs: Values) -> Values:
        """The timesteps themselves, if later stages use them."""
        later = (*self._program.stages[SHARED].inputs, *self._program.stages[STEP].inputs)
        return {name: value for name, value in inputs.items() if name in later}

    def _pack(self, results: Values, count: int) -> dict[torch.dtype, Tensor]:
        pieces: dict[torch.dtype, list[Tensor]] = {}
        used: dict[torch.dtype, int] = {}
        for name, value in results.items():
            flat = value.reshape(count, -1)
            self._places[name] = (value.dtype, used.get(value.dtype, 0), tuple(value.shape[1:]))
            padded = torch.nn.functional.pad(flat, (0, -flat.shape[1] % ROW_ALIGNMENT))
            pieces.setdefault(value.dtype, []).append(padded)
            used[value.dtype] = used.get(value.dtype, 0) + padded.shape[1]
        return {dtype: torch.cat(parts, dim=1) for dtype, parts in pieces.items()}

    def __contains__(self, timestep: float) -> bool:
        return timestep in self._rows

    def clear(self) -> None:
        self._rows.clear()

    def trim(self, kept: int) -> None:
        """Clears the table if it has more than `kept` timesteps."""
        if len(self._rows) > kept:
            self.clear()

    def row(self, timestep: float) -> dict[torch.dtype, Tensor]:
        return self._rows.get(timestep, {})

    def values(self, row: Mapping[torch.dtype, Tensor]) -> Values:
        """The named values [1, ...] inside a packed row, without copies."""
        found: Values = {}
        for name, (dtype, start, shape) in self._places.items():
            count = torch.Size(shape).numel()
            found[name] = row[dtype][start : start + count].view(1, *shape)
        return found


class Execution:
    """One program at one set of sizes. The batch has `halves` rows for each row of the latent."""

    def __init__(self, program: Program, actual: Mapping[str, int], halves: int = 1) -> None:
        self.program = program
        self.times = TimeTable(program, actual)
        self._halves = halves
        self._prompt = program.function(PROMPT, actual)
        self._time = program.function(TIME, actual)
        self._shared = program.function(SHARED, {**actual, ROWS: actual[ROWS] // halves} if ROWS in actual else actual)
        self._step = program.function(STEP, actual)
        self._weights = program.constants(SHARED) | program.constants(STEP)
        known_to_half = {*self._shared.outputs, *program.inputs_at("latent")}
        self._repeated = tuple(
            name for name in self._step.inputs if name in known_to_half and program.has_rows(STEP, name)
        )
        self.moving_inputs = (*program.inputs_at("latent"), *program.inputs_at("step"))
        self._prompt_values: Values = {}
        self._which = 0  # number of the current prompt
        self._kept_prompts: dict[int, Values] = {}
        self._held: dict[torch.dtype, Tensor] = {}
        self.stamp: int | None = None  # the engine's stamp when the current prompt was evaluated

    def show_prompt(self, stamp: int | None, inputs: Mapping[str, Tensor], which: int = 0) -> None:
        """Makes prompt number `which` current. Results with a different stamp are out of date.

        If the stamp is None, the results are evaluated now and are out of date after this call.
        """
        if stamp is None or self.stamp != stamp:
            self.set_prompt(inputs, which)
            self.stamp = stamp
        else:
            self.switch_prompt(which, inputs)

    def set_prompt(self, inputs: Mapping[str, Tensor], which: int = 0) -> None:
        """Evaluates the prompt stage. Its results keep their addresses, since captured graphs read them there.

        `which` is the number of this prompt for later switches.
        """
        self.forget_prompts()
        self._which = which
        self._hold_prompt(self._evaluate_prompt(inputs))

    def switch_prompt(self, which: int, inputs: Mapping[str, Tensor]) -> None:
        """Makes another prompt current. It is evaluated on first use after `set_prompt`."""
        if which == self._which:
            return
        if self._which not in self._kept_prompts:
            self._kept_prompts[self._which] = {name: value.clone() for name, value in self._prompt_values.items()}
        if which not in self._kept_prompts:
            self._kept_prompts[which] = self._evaluate_prompt(inputs)
        self._hold_prompt(self._kept_prompts[which])
        self._which = which

    def forget_prompts(self) -> None:
        """Frees the results kept for switching."""
        self._kept_prompts.clear()

    def _evaluate_prompt(self, inputs: Mapping[str, Tensor]) -> Values:
        results = self._prompt({**self.program.constants(PROMPT), **inputs})
        later = (*self._shared.inputs, *self._step.inputs)
        return results | {name: value for name, value in inputs.items() if name in later}

    def _hold_prompt(self, results: Values) -> None:
        for name, value in results.items():
            if name in self._prompt_values:
                self._prompt_values[name].copy_(value)
            else:
                self._prompt_values[name] = new_buffer(value)

    def evaluate_time(self, inputs: Mapping[str, Tensor]) -> Values:
        """The time stage's results for tensor inputs, without the table."""
        results = self._time({**self.program.constants(TIME), **inputs})
        return {**inputs, **results}

    def hold_row(self, timestep: float) -> None:
        """Copies a timestep's row to the buffer used by `run_held` and graphs captured from it."""
        for dtype, row in self.times.row(timestep).items():
            if dtype in self._held:
                self._held[dtype].copy_(row)
            else:
                self._held[dtype] = new_buffer(row)

    def run_held(self, *moving: Tensor) -> Any:
        """`run` with the row set by `hold_row`."""
        return self.run(moving, self.times.values(self._held))

    def run(self, moving: Sequence[Tensor], time_values: Mapping[str, Tensor]) -> Any:
        """Runs the shared and step stages on the inputs that change each step, in the order of `moving_inputs`."""
        values: dict[str, Tensor] = {**self._weights, **self._prompt_values, **time_values}
        values |= zip(self.moving_inputs, moving, strict=True)
        values |= self._shared(values)
        if self._halves > 1:
            values |= {name: torch.cat([values[name]] * self._halves) for name in self._repeated}
        values |= self._step(values)
        return self.program.result(values)

    def step_of(self, tensors: Mapping[str, Tensor]) -> tuple[Callable[..., Any], list[Tensor]]:
        """The stages after the prompt as one function that can be captured, and its inputs.

        For times given as tensors, without the table.
        """
        times = self.program.inputs_at("time")

        def function(*values: Tensor) -> Any:
            known = self.evaluate_time(dict(zip(times, values, strict=False)))
            return self.run(values[len(times) :], known)

        return function, [tensors[name] for name in (*times, *self.moving_inputs)]


def can_capture(device: torch.device) -> bool:
    """Whether this device supports CUDA graphs."""
    return device.type == "cuda"


def in_program_layout(x: Tensor) -> Tensor:
    """x in the memory layout that programs take: feature maps [N, C, h, w] channels-last, all others contiguous."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def new_buffer(value: Tensor) -> Tensor:
    """A copy that can be written to later, inside and outside inference mode."""
    with torch.inference_mode(mode=False), torch.no_grad():
        return torch.empty_like(value).copy_(value)
