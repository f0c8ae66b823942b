"""The rule of `--memory`: which networks leave the GPU, by sizes and free memory alone."""

from __future__ import annotations

import pytest

from modules.loader.placement import LEAVING, TEXT, VAE, Needs, leaving

GB = 10**9
SDXL = Needs(networks={"UNet": 5_140_000_000, TEXT: 1_640_000_000, VAE: 170_000_000}, work=4_570_000_000)
SD15 = Needs(networks={"UNet": 1_720_000_000, TEXT: 250_000_000, VAE: 170_000_000}, work=1_140_000_000)


@pytest.mark.parametrize(
    ("needs", "gigabytes", "gone"),
    [
        (SDXL, 11.52, ()),  # exactly what everything needs
        (SDXL, 11.5, (TEXT,)),
        (SDXL, 9.88, (TEXT,)),
        (SDXL, 9.87, (TEXT, VAE)),
        (SDXL, 7.5, (TEXT, VAE)),
        (SD15, 3.4, ()),
        (SD15, 3.1, (TEXT,)),
        (SD15, 0.0, (TEXT, VAE)),
    ],
)
def test_auto_lets_as_few_leave_as_needed(needs: Needs, gigabytes: float, gone: tuple[str, ...]) -> None:
    assert leaving("auto", needs, round(gigabytes * GB)) == gone


@pytest.mark.parametrize("free", [0, 100 * GB])
def test_high_and_low_do_not_depend_on_free_memory(free: int) -> None:
    assert leaving("high", SDXL, free) == ()
    assert leaving("low", SDXL, free) == LEAVING == (TEXT, VAE)
