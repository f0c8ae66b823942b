"""Computes quantiles of the beta distribution, without scipy."""

from __future__ import annotations

import math

_TINY = 1e-300
_PRECISION = 1e-15


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Finds the x below which a Beta(a, b) variable lies with this probability, by bisection of the distribution."""
    low, high = 0.0, 1.0
    if probability <= low or probability >= high:
        return min(max(probability, low), high)
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if beta_cdf(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """Computes the regularised incomplete beta function by its continued fraction, on the side that converges fast."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _continued_fraction(x, a, b))


def _continued_fraction(x: float, a: float, b: float, terms: int = 500) -> float:
    """Evaluates 1 + d1/(1 + d2/(1 + ...)) from DLMF 8.17.22 by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for index in range(1, terms):
        half = index // 2
        if index % 2:
            coefficient = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            coefficient = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        d = 1.0 / _away_from_zero(1.0 + coefficient * d)
        c = _away_from_zero(1.0 + coefficient / c)
        value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
