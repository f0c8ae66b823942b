"""Strength, start and end, modes and sums of residuals, and their effect on the UNet."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modules.controlnet.apply import AppliedAdapter, AppliedControl, ControlStack, sampling_progress, sum_residuals
from modules.core.runner import TextInputs
from tests import tiny

ROWS = 4  # two pictures, conditional and unconditional


class Probe:
    """Returns ones, weighted so that rows and layers are distinguishable, and records its inputs."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, ...]] = []

    def __call__(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None
    ) -> tuple[Tensor, ...]:
        self.calls.append((x, hint, timesteps, context))
        return tuple(torch.full((x.shape[0], 2, 1, 1), float(layer + 1)) for layer in range(13))


def control(network: object = None, **options: object) -> AppliedControl:
    hint = options.pop("hint", torch.zeros(1, 3, 64, 64))
    return AppliedControl(network=network or Probe(), hint=hint, **options)  # type: ignore[arg-type]


def run(
    applied: AppliedControl, progress: float = 0.5, conditional: int | None = 2, channels: int = 4
) -> tuple[Tensor, ...] | None:
    x = torch.arange(ROWS * channels * 64, dtype=torch.float32).reshape(ROWS, channels, 8, 8)
    return applied.residuals(x, 500.0, TextInputs(torch.zeros(ROWS, 7, 64)), progress, conditional=conditional)


def test_balanced_is_the_network_times_strength() -> None:
    residuals = run(control(strength=0.5))
    assert residuals is not None
    assert [residual.unique().tolist() for residual in residuals] == [[0.5 * (layer + 1)] for layer in range(13)]
    assert all(residual.shape[0] == ROWS for residual in residuals)


def test_prompt_mode_weakens_early_layers_on_both_halves() -> None:
    residuals = run(control(strength=2.0, mode="prompt"))
    assert residuals is not None
    for layer, residual in enumerate(residuals):
        expected = torch.full_like(residual, 2.0 * (layer + 1) * 0.825 ** (12 - layer))
        torch.testing.assert_close(residual, expected)


def test_control_mode_leaves_the_unconditional_half_alone() -> None:
    probe = Probe()
    residuals = run(control(probe, mode="control"))
    assert residuals is not None
    for layer, residual in enumerate(residuals):
        torch.testing.assert_close(residual[:2], torch.full((2, 2, 1, 1), (layer + 1) * 0.825 ** (12 - layer)))
        assert residual[2:].count_nonzero() == 0
    assert [tensor.shape[0] for tensor in probe.calls[0]] == [2, 2, 2, 2]


def test_control_mode_without_guidance_acts_on_every_row() -> None:
    residuals = run(control(mode="control"), conditional=ROWS)
    assert residuals is not None and all(residual.count_nonzero() == residual.numel() for residual in residuals)


@pytest.mark.parametrize(
    ("start", "end", "strength", "progress", "active"),
    [
        (0.0, 1.0, 1.0, 0.0, True),
        (0.0, 1.0, 1.0, 1.0, True),
        (0.2, 0.6, 1.0, 0.19, False),
        (0.2, 0.6, 1.0, 0.2, True),
        (0.2, 0.6, 1.0, 0.6, True),
        (0.2, 0.6, 1.0, 0.61, False),
        (0.0, 0.0, 1.0, 0.0, False),
        (0.0, 1.0, 0.0, 0.5, False),
    ],
)
def test_active_between_start_and_end(start: float, end: float, strength: float, progress: float, active: bool) -> None:
    probe = Probe()
    residuals = run(control(probe, start=start, end=end, strength=strength), progress)
    assert (residuals is not None) == active == bool(probe.calls)


def test_progress_counts_training_timesteps() -> None:
    assert [sampling_progress(t) for t in (999.0, 0.0, 1200.0, -1.0)] == [0.0, 1.0, 0.0, 1.0]
    assert sampling_progress(499.5) == pytest.approx(0.5)


def test_progress_of_an_edm_model_is_its_position_in_log_noise() -> None:
    """EDM's timesteps are a quarter of log noise (Karras et al. 2022), here from 80 down to 0.002."""
    times = (math.log(80) / 4, math.log(0.002) / 4)
    middle = math.log((80 * 0.002) ** 0.5) / 4
    assert [sampling_progress(t, times) for t in (*times, middle)] == pytest.approx([0.0, 1.0, 0.5])
    stack = ControlStack([control(start=0.0, end=0.4)], conditional=1, times=times)
    x, text = torch.zeros(2, 4, 8, 8), TextInputs(torch.zeros(2, 7, 64))
    assert stack(x, times[0], text) is not None and stack(x, middle, text) is None


def test_one_hint_serves_all_rows_and_many_hints_their_own_picture() -> None:
    one, two = Probe(), Probe()
    run(control(one, hint=torch.rand(1, 3, 64, 64)))
    hints = torch.rand(2, 3, 64, 64)
    run(control(two, hint=hints))
    assert one.calls[0][1].shape[0] == ROWS
    assert torch.equal(two.calls[0][1], torch.cat([hints, hints]))


def test_extra_channels_of_an_inpainting_unet_are_left_out() -> None:
    probe = Probe()
    run(control(probe), channels=9)
    assert probe.calls[0][0].shape == (ROWS, 4, 8, 8)


def test_a_hint_of_another_size_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="hint"):
        run(control(hint=torch.zeros(1, 3, 32, 64)))


def test_several_controls_are_summed_and_idle_ones_skipped() -> None:
    x, text = torch.zeros(2, 4, 8, 8), TextInputs(torch.zeros(2, 7, 64))
    controls = [control(strength=0.5), control(strength=2.0), control(start=0.9)]
    total = sum_residuals(controls, x, 500.0, text, 0.5)
    assert total is not None and total[3].unique().tolist() == [2.5 * 4]
    assert sum_residuals(controls[2:], x, 500.0, text, 0.5) is None
    assert sum_residuals([], x, 500.0, text, 0.5) is None


def test_stack_reads_progress_from_the_timestep() -> None:
    stack = ControlStack([control(start=0.0, end=0.5, mode="control")], conditional=1)
    x, text = torch.zeros(2, 4, 8, 8), TextInputs(torch.zeros(2, 7, 64))
    early = stack(x, 900.0, text)
    assert early is not None and early[12][0].count_nonzero() == 2 and early[12][1].count_nonzero() == 0
    assert stack(x, 100.0, text) is None


def test_unet_output_changes_with_the_hint_and_not_at_strength_zero() -> None:
    unet, network = tiny.unet(), tiny.controlnet()
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 64)
    times = torch.full((2,), 400.0)

    def output(hint: Tensor, strength: float) -> Tensor:
        stack = ControlStack([AppliedControl(network=network, hint=hint, strength=strength)], conditional=1)
        with torch.inference_mode():
            return unet(x, times, context, stack(x, 400.0, TextInputs(context)))

    black, white = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    with torch.inference_mode():
        plain = unet(x, times, context)
    assert torch.equal(output(white, 0.0), plain)
    assert (output(white, 1.0) - plain).abs().max() > 0.01
    assert (output(white, 1.0) - output(black, 1.0)).abs().max() > 0.001


def test_features_follow_the_residuals_and_keep_their_own_range_and_strength() -> None:
    features = tuple(torch.full((1, 2, 4, 4), float(level)) for level in range(4))
    adapter = AppliedAdapter(features=features, strength=0.5, end=0.4)
    both = ControlStack([adapter, control(), adapter], conditional=1)
    x, text = torch.zeros(ROWS, 4, 8, 8), TextInputs(torch.zeros(ROWS, 7, 64))
    early, late = both(x, 900.0, text), both(x, 100.0, text)
    assert early is not None and len(early) == 13 + 4 and late is not None and len(late) == 13
    assert [feature.unique().tolist() for feature in early[13:]] == [[float(level)] for level in range(4)]
    assert all(feature.shape == (ROWS, 2, 4, 4) for feature in early[13:])
    alone = ControlStack([adapter], conditional=1)
    assert len(alone(x, 900.0, text) or ()) == 4 and alone(x, 100.0, text) is None
