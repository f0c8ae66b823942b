"""Quantiles of the beta distribution agree with scipy's."""

from __future__ import annotations

import pytest
from scipy import stats

from modules.sampling.beta_distribution import beta_cdf, beta_quantile


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (1.0, 1.0), (2.0, 5.0), (0.3, 4.0), (30.0, 2.0)])
def test_quantiles_and_distribution_agree_with_scipy(a: float, b: float) -> None:
    for index in range(101):
        share = index / 100
        assert beta_cdf(share, a, b) == pytest.approx(stats.beta.cdf(share, a, b), rel=1e-11, abs=1e-14)
        assert beta_quantile(share, a, b) == pytest.approx(stats.beta.ppf(share, a, b), rel=1e-9, abs=1e-14)
