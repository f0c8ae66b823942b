"""A program at actual sizes. It keeps results that do not change from step to step, and runs the rest."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.graph.staging import PROMPT, ROWS, SCHEDULE, SHARED, STEP, TIME
from modules.stable_fast.runtime.program import Program, Values
from modules.stable_fast.runtime.row_table import RowTable, new_buffer

NO_GRAPHS = "CUDA graphs need an NVIDIA GPU"
# A replay draws new numbers only from the GPU's default generator; numbers drawn on the CPU would be frozen.
DRAWS = "it draws random numbers, which a CUDA graph may freeze"


class Execution:
    """One program at one set of sizes. The batch has `halves` rows for each row of the latent."""

    def __init__(self, program: Program, actual: Mapping[str, int], halves: int = 1) -> None:
        self.program = program
        self.sizes: Mapping[str, int] = dict(actual)
        self._halves = halves
        self._prompt = program.function(PROMPT, actual)
        self._time = program.function(TIME, {**actual, ROWS: 1} if program.has_one_time else actual)
        self._schedule = program.function(SCHEDULE, actual)
        self._shared = program.function(SHARED, {**actual, ROWS: actual[ROWS] // halves} if ROWS in actual else actual)
        self._step = program.function(STEP, actual)
        self._weights = program.constants(SHARED) | program.constants(STEP)
        known_to_half = {*self._shared.outputs, *program.inputs_at("latent")}
        self._repeated = tuple(
            name for name in self._step.inputs if name in known_to_half and program.has_rows(STEP, name)
        )
        self.moving_inputs = (*program.inputs_at("latent"), *program.inputs_at("step"))
        self.run_prompt: Callable[[Callable[..., None], Sequence[Tensor]], None] = _run  # or by a graph
        self._prompt_values: Values = {}
        self._which = 0  # number of the current prompt
        self._kept_prompts: dict[int, Values] = {}
        self._times = RowTable[float]()  # results of the time stage, by timestep
        self._schedules = RowTable[tuple[int, float]]()  # of the schedule stage, by number of the prompt and timestep
        self.stamp: Hashable = None  # tells what the current prompt's results were computed from

    def show_prompt(self, stamp: Hashable, inputs: Mapping[str, Tensor], which: int = 0) -> None:
        """Makes prompt number `which` current. Results with a different stamp are out of date."""
        if self.stamp != stamp:
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

        def hold(*values: Tensor) -> None:
            self._hold_prompt(self._evaluate_prompt(dict(zip(inputs, values, strict=True))))

        if self._prompt_values and inputs:
            self.run_prompt(hold, list(inputs.values()))
        else:
            hold(*inputs.values())

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
        """Frees the results kept for switching, and those of the schedule stage."""
        self._kept_prompts.clear()
        self._schedules.clear()

    def _evaluate_prompt(self, inputs: Mapping[str, Tensor]) -> Values:
        results = self._prompt({**self.program.constants(PROMPT), **inputs})
        return results | self._used_later(inputs)

    def _used_later(self, inputs: Mapping[str, Tensor]) -> Values:
        """The inputs of the prompt or time stage that later stages use as they are."""
        later = (*self._schedule.inputs, *self._shared.inputs, *self._step.inputs)
        return {name: value for name, value in inputs.items() if name in later}

    def _hold_prompt(self, results: Values) -> None:
        for name, value in results.items():
            if name in self._prompt_values:
                self._prompt_values[name].copy_(value)
            else:
                self._prompt_values[name] = new_buffer(value)

    def knows(self, timestep: float) -> bool:
        """Whether the results that the current prompt needs at this timestep are tabulated."""
        is_scheduled = not self._schedule.outputs or (self._which, timestep) in self._schedules
        return is_scheduled and timestep in self._times

    def tabulate(self, timesteps: Sequence[float], device: torch.device) -> None:
        """Runs the time stage, and the schedule stage for the current prompt, for all new timesteps (fp32) at once."""
        new = self._times.missing(timesteps)
        names = self.program.inputs_at("time")
        if new and names:
            column = torch.tensor(new, dtype=torch.float32, device=device)
            stage = self.program.function(TIME, {**self.sizes, ROWS: len(new)})
            inputs = dict.fromkeys(names, column)
            results = stage({**self.program.constants(TIME), **inputs})
            self._times.add(new, self._used_later(inputs) | results)
        if self._schedule.outputs:
            self._tabulate_schedule(timesteps)

    def _tabulate_schedule(self, timesteps: Sequence[float]) -> None:
        """Runs the schedule stage on the whole batch for each new timestep: [timesteps * batch] rows at once."""
        new = self._schedules.missing((self._which, timestep) for timestep in timesteps)
        if not new:
            return
        batch = self.sizes[ROWS]
        times = [self._times.values(timestep) for _, timestep in new]
        inputs = self.program.constants(SCHEDULE)
        for name in self._schedule.inputs:
            if name in times[0]:
                inputs[name] = torch.cat([repeated(values[name], batch) for values in times])
            elif name in self._prompt_values:
                value = self._prompt_values[name]
                inputs[name] = repeated(value, len(new)) if self.program.has_rows(SCHEDULE, name) else value
        stage = self.program.function(SCHEDULE, {**self.sizes, ROWS: len(new) * batch})
        self._schedules.add(new, stage(inputs))

    def trim_times(self, kept: int) -> None:
        """Forgets the results of the time stage if they are for more than `kept` timesteps."""
        self._times.trim(kept)

    def forget_times(self) -> None:
        """Forgets the results of the time and schedule stages, for example since weights changed."""
        self._times.clear()
        self._schedules.clear()

    def known_at(self, timestep: float) -> Values:
        """The tabulated results for a timestep and the current prompt."""
        return self._times.values(timestep) | self._schedules.values((self._which, timestep))

    def hold_row(self, timestep: float) -> None:
        """Copies `known_at(timestep)` to the buffers used by `run_held` and graphs captured from it."""
        self._times.hold(timestep)
        self._schedules.hold((self._which, timestep))

    def run_held(self, *moving: Tensor) -> Any:
        """`run` with the row set by `hold_row`."""
        return self.run(moving, self._times.held() | self._schedules.held())

    def run(self, moving: Sequence[Tensor], known: Mapping[str, Tensor]) -> Any:
        """Runs the shared and step stages on the inputs that change each step, in the order of `moving_inputs`.

        `known` are the results of the time and schedule stages.
        """
        values: dict[str, Tensor] = {**self._weights, **self._prompt_values, **known}
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
            known: Values = dict(zip(times, values, strict=False))
            known |= self._time({**self.program.constants(TIME), **known})
            known |= self._schedule({**self.program.constants(SCHEDULE), **self._prompt_values, **known})
            return self.run(values[len(times) :], known)

        return function, [tensors[name] for name in (*times, *self.moving_inputs)]


def _run(function: Callable[..., None], inputs: Sequence[Tensor]) -> None:
    function(*inputs)


def can_capture(device: torch.device) -> bool:
    """Whether this device supports CUDA graphs."""
    return device.type == "cuda"


def repeated(value: Tensor, times: int) -> Tensor:
    """The value's rows, all of them one after another, `times` times [times * rows, ...]."""
    return value.repeat(times, *[1] * (value.dim() - 1))


def in_program_layout(x: Tensor) -> Tensor:
    """x in the memory layout that programs take: feature maps [N, C, h, w] channels-last, all others contiguous."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()
