"""The Brownian path: statistics, independence of the order of queries, and the same distribution as torchsde."""

from __future__ import annotations

import math

import pytest
import torch
import torchsde
from scipy import stats

from modules.sampling.brownian import BrownianPath

SHAPE = (4, 50, 50)
LOW, HIGH = 0.03, 14.6
TIMES = [0.03, 0.0317, 0.035, 0.05, 0.2, 1.0, 3.7, 8.0, 14.6]


def test_increments_are_independent_unit_gaussians() -> None:
    path = BrownianPath(5, (100, 100), LOW, HIGH)
    increments = torch.stack(
        [(path(b) - path(a)).flatten() / math.sqrt(b - a) for a, b in zip(TIMES, TIMES[1:], strict=False)]
    )
    for increment in increments:
        assert stats.kstest(increment.numpy(), "norm").pvalue > 1e-4
    correlation = torch.corrcoef(increments) - torch.eye(len(increments))
    assert correlation.abs().max() < 5 / math.sqrt(10_000)


def test_the_variance_is_right_down_to_neighbouring_levels_of_long_schedules() -> None:
    path = BrownianPath(6, (200, 200), LOW, HIGH)
    for a, b in [(0.030, 0.0303), (0.5, 0.5005), (14.0, 14.0004)]:
        assert float((path(b) - path(a)).var()) == pytest.approx(b - a, rel=0.05)


def test_the_order_of_questions_does_not_matter() -> None:
    forward, backward = BrownianPath(7, SHAPE, LOW, HIGH), BrownianPath(7, SHAPE, LOW, HIGH)
    rising = [forward(time) for time in TIMES]
    falling = [backward(time) for time in reversed(TIMES)][::-1]
    for first, second in zip(rising, falling, strict=True):
        assert torch.equal(first, second)
    fresh = BrownianPath(7, SHAPE, LOW, HIGH)
    assert torch.equal(fresh(1.0), rising[TIMES.index(1.0)])


def test_it_starts_at_zero_and_ends_with_the_whole_variance() -> None:
    path = BrownianPath(8, SHAPE, LOW, HIGH)
    assert torch.count_nonzero(path(LOW)) == 0
    assert float(path(HIGH).var()) == pytest.approx(HIGH - LOW, rel=0.05)


def test_seeds_give_unrelated_paths() -> None:
    one, two = BrownianPath(9, (100, 100), LOW, HIGH), BrownianPath(10, (100, 100), LOW, HIGH)
    correlation = torch.corrcoef(torch.stack([one(3.0).flatten(), two(3.0).flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.05


def test_it_has_the_law_of_torchsdes_tree() -> None:
    ours = BrownianPath(11, (100, 100), LOW, HIGH)
    theirs = torchsde.BrownianTree(LOW, torch.zeros(100, 100), HIGH, entropy=11)
    for a, b in [(0.05, 0.2), (1.0, 3.7), (3.7, 14.6)]:
        first = (ours(b) - ours(a)).flatten().numpy()
        second = theirs(a, b).flatten().numpy()
        assert stats.ks_2samp(first, second).pvalue > 1e-4
    for path in (lambda a, b: ours(b) - ours(a), theirs):
        # The SDE samplers rely on the correlation between a step and its first half.
        whole, half = path(1.0, 4.0).flatten(), path(2.0, 4.0).flatten()
        assert float(torch.corrcoef(torch.stack([whole, half]))[0, 1]) == pytest.approx(math.sqrt(2 / 3), abs=0.03)
