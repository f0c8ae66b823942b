"""Image i of a batch gets the same noise as when made alone, and the global generator is never used."""

from __future__ import annotations

import torch

from modules.sampling.noise import ImageNoise

SHAPE = (4, 8, 6)


def _draws(noise: ImageNoise) -> list[torch.Tensor]:
    brownian = noise.brownian(0.03, 14.6)
    return [noise.start(), noise.step(), brownian(14.6, 9.0), noise.step(), brownian(9.0, 0.5), noise.start()]


def test_a_batch_is_its_single_images() -> None:
    batch = _draws(ImageNoise([7, 8, 9], SHAPE))
    for row, seed in enumerate([7, 8, 9]):
        alone = _draws(ImageNoise([seed], SHAPE))
        for together, single in zip(batch, alone, strict=True):
            assert together.shape == (3, *SHAPE)
            assert torch.equal(together[row : row + 1], single)


def test_draws_are_fresh_and_the_start_is_not() -> None:
    draws = _draws(ImageNoise([1], SHAPE))
    assert torch.equal(draws[0], draws[-1])
    distinct = {tuple(draw.flatten().tolist()) for draw in draws}
    assert len(distinct) == len(draws) - 1


def test_the_start_is_the_usual_cpu_noise_of_the_seed() -> None:
    expected = torch.randn(SHAPE, generator=torch.Generator().manual_seed(42))
    assert torch.equal(ImageNoise([42], SHAPE).start()[0], expected)


def test_the_global_generator_plays_no_part() -> None:
    torch.manual_seed(0)
    first = _draws(ImageNoise([3], SHAPE))
    state = torch.get_rng_state()
    second = _draws(ImageNoise([3], SHAPE))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_large_seeds_are_accepted() -> None:
    assert ImageNoise([2**64 - 1, 0], SHAPE).start().shape == (2, *SHAPE)


def test_brownian_noise_has_unit_variance_and_a_direction() -> None:
    brownian = ImageNoise([5], (4, 40, 40)).brownian(0.03, 14.6)
    down = brownian(9.0, 2.0)
    assert abs(float(down.std()) - 1.0) < 0.05
    assert torch.equal(down, -brownian(2.0, 9.0))
