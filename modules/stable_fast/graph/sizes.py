"""Named sizes: one traced graph serves every batch size and resolution, since a prime marks each size in it.

A dynamic dimension is written as a name or a multiple of one, `"batch"` or `"8*height"`. The module is traced on fake
tensors with large primes as their named sizes. These primes divide nothing else in the module, so a literal of the
graph with such a factor can only come from that size (`8*height*8*width` appears as 8*101*8*103). Replacing the prime
gives the literal for any other size. Sums of named sizes have formulas (graph/formulas.py). `verify.propagate` checks
each replacement before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any, NamedTuple

from torch import Tensor

Dims = tuple["str | None", ...]  # one entry per dimension: None (fixed), "name" or "k*name"

# Larger than any small literal. None of them divides 2**63 - 1, which means "to the end" in ATen.
_PRIMES = (101, 103, 107, 109, 113, 131, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 197, 199, 211, 223)

# For networks with a largest size, such as CLIP's 77 positions.
_SMALL_PRIMES = (73, 71, 67, 61, 59, 53, 47, 43, 41, 37, 31, 29)


class SizeError(ValueError):
    """A graph with named sizes does not fit these sizes: one is not a multiple, or one name has two values."""


class Term(NamedTuple):
    """A part of a sum: a fraction times named sizes. Without names it is a constant."""

    numerator: int
    denominator: int
    names: tuple[str, ...]


Formula = tuple[Term, ...]


@dataclass(frozen=True)
class Sizes:
    """The primes that stand for the named sizes of one traced graph, and what its other literals stand for."""

    primes: Mapping[str, int]
    formulas: Mapping[int, Formula] = field(default_factory=dict[int, Formula])

    def replace(self, literal: int, actual: Mapping[str, int]) -> int:
        """`literal` with its primes replaced by actual values, all at once, since a value may be a prime itself.

        Raises SizeError if a formula gives no whole number at these sizes."""
        if literal in self.formulas:
            return value_of(self.formulas[literal], actual)
        if literal == 0 or abs(literal) >= 2**62:
            return literal
        rest, product = literal, 1
        for name, prime in self.primes.items():
            while rest % prime == 0:
                rest //= prime
                product *= actual[name]
        return rest * product

    def names_in(self, shape: Iterable[int]) -> set[str]:
        """The named sizes that occur in a traced shape."""
        shape = list(shape)
        summed = {name for size in shape for term in self.formulas.get(size, ()) for name in term.names}
        return summed | {
            name for name, prime in self.primes.items() if any(size and size % prime == 0 for size in shape)
        }


def value_of(formula: Formula, actual: Mapping[str, int]) -> int:
    """A sum at actual sizes. Raises SizeError if it is not a whole number."""
    value = sum(
        (Fraction(term.numerator, term.denominator) * prod(actual[name] for name in term.names) for term in formula),
        start=Fraction(),
    )
    if value.denominator != 1:
        raise SizeError(f"it needs a size of {value}, which is not a whole number")
    return value.numerator


@cache
def parse_dim(dim: str) -> tuple[int, str]:
    """`"8*height"` -> (8, "height")."""
    match = re.fullmatch(r"(?:([1-9]\d*)\*)?([^\W\d]\w*)", str(dim))
    if match is None:
        raise ValueError(f"dimension {dim!r} is neither None nor a name such as 'height' or '8*height'")
    return int(match[1] or 1), match[2]


def _dims_of(name: str, tensor: Tensor, dims: Mapping[str, Dims]) -> Dims:
    """The names of an input's dimensions. Without names, all are fixed."""
    return dims.get(name, (None,) * tensor.dim())


def fixed_sizes(name: str, tensor: Tensor, dims: Mapping[str, Dims]) -> tuple[int, ...]:
    """The unnamed sizes of an input."""
    return tuple(size for dim, size in zip(_dims_of(name, tensor, dims), tensor.shape, strict=True) if dim is None)


def measure(dims: Mapping[str, Dims], tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The value of each named size in these inputs.

    Raises SizeError if an input has the wrong rank, is not a multiple, or contradicts another input."""
    values: dict[str, int] = {}
    for name, tensor in tensors.items():
        named = _dims_of(name, tensor, dims)
        if len(named) != tensor.dim():
            raise SizeError(f"input {name} has {tensor.dim()} dimensions, but dims gives it {len(named)}")
        for dim, size in zip(named, tensor.shape, strict=True):
            if dim is None:
                continue
            factor, symbol = parse_dim(dim)
            if size % factor:
                raise SizeError(f"input {name} has a dimension of {size}, which is not a multiple of {factor}")
            if values.setdefault(symbol, size // factor) != size // factor:
                raise SizeError(f"input {name} gives {symbol} = {size // factor}, another input {values[symbol]}")
    return values


def choose_primes(names: Iterable[str], fixed: Iterable[int], primes: Sequence[int] = _PRIMES) -> list[Sizes]:
    """Sets of a prime for each name, as many as there are primes. The primes divide none of the fixed sizes.

    Raises SizeError if there are too few for one set."""
    names, fixed = sorted(names), set(fixed)
    free = [prime for prime in primes if not any(size % prime == 0 for size in fixed if size)]
    if len(free) < len(names):
        raise SizeError(f"too few primes are free for the named sizes {', '.join(names)}")
    chosen = [free[start : start + len(names)] for start in range(0, len(free), len(names) or len(free))]
    return [Sizes(dict(zip(names, each, strict=False))) for each in chosen if len(each) >= len(names)]


def choices_of_primes(names: Iterable[str], fixed: Iterable[int]) -> Iterator[list[Sizes]]:
    """Large primes, and then small ones for a network with a largest size. Raises SizeError if there are too few."""
    names, fixed = set(names), set(fixed)
    yield choose_primes(names, fixed)
    if names:
        yield choose_primes(names, fixed, _SMALL_PRIMES)
        yield choose_primes(names, fixed, _SMALL_PRIMES[5:])


def example_shape(tensor: Tensor, dims: Dims, sizes: Sizes) -> tuple[int, ...]:
    """The shape to trace with: primes for named dimensions, the others unchanged."""
    shape = list(tensor.shape)
    for axis, dim in enumerate(dims):
        if dim is not None:
            factor, name = parse_dim(dim)
            shape[axis] = factor * sizes.primes[name]
    return tuple(shape)


def replace_literal(leaf: Any, sizes: Sizes, actual: Mapping[str, int]) -> Any:
    """A leaf of a node's arguments at actual sizes."""
    is_size = isinstance(leaf, int) and not isinstance(leaf, bool)
    return sizes.replace(leaf, actual) if is_size else leaf
