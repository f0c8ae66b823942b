"""Finds sums of named sizes in a graph, such as `tokens + area` or `past + 1`, from traces with other primes.

A product of named sizes is recognised by its primes (graph/sizes.py), but a sum is divisible by none of them. The same
literal in three traces with three sets of primes tells which formula it is: two traces give the factors, and the third
proves them. Most sums are of two named sizes, as `tokens + patches`. One trace is enough to guess such a sum, and the
graph itself proves it, run at other sizes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, combinations_with_replacement
from math import prod

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from modules.stable_fast.graph.sizes import Formula, Sizes, Term

LARGEST_FACTOR = 16  # of a numerator and a denominator; an accidental solution has larger ones


def with_formulas(traces: Sequence[tuple[fx.Graph, Sizes]]) -> Sizes:
    """The sizes of the first trace, with a formula for each literal that is none of their products.

    They stay as they are if the graphs differ in more than literals, or if one literal would have two meanings.
    """
    sizes = [each for _, each in traces]
    literals = [list(_literals(graph)) for graph, _ in traces]
    if len({len(found) for found in literals}) > 1:
        return sizes[0]
    meanings: dict[int, set[tuple[int, ...]]] = {}
    for found in zip(*literals, strict=True):
        meanings.setdefault(found[0], set()).add(found)
    formulas: dict[int, Formula] = {}
    for literal, found in meanings.items():
        unknown = [values for values in found if any(_is_other(values, sizes))]
        if unknown and len(found) > 1:
            return sizes[0]
        formula = solve(unknown[0], [each.primes for each in sizes]) if unknown else None
        if formula is not None:
            formulas[literal] = formula
    return replace(sizes[0], formulas=formulas)


def with_guesses(graph: fx.Graph, sizes: Sizes) -> Sizes:
    """The sizes of one trace, with a formula for each literal that is the sum of two named sizes, or products of two.

    Another size of the network may be the same number by accident: `verify.fits` tells whether the guesses hold.
    """
    names = sorted(sizes.primes)
    products = [each for count in (1, 2) for each in combinations_with_replacement(names, count)]
    sums: dict[int, list[Formula]] = defaultdict(list)
    for pair in combinations(products, 2):
        value = sum(prod(sizes.primes[name] for name in product) for product in pair)
        sums[value].append(tuple(Term(1, 1, product) for product in pair))
    found = {literal for literal in _literals(graph) if len(sums.get(literal, ())) == 1}
    return replace(sizes, formulas={each: sums[each][0] for each in found if not sizes.names_in([each])})


def solve(values: Sequence[int], sizes: Sequence[Mapping[str, int]]) -> Formula | None:
    """The simplest formula that gives these values at these sizes: `a*m + b*n`, `a*m + constant`, `m + n + constant`.

    m and n are named sizes or products of up to three; a and b are rational with small terms. None if there is none.
    """
    names = sorted(sizes[0])
    products = [names_ for count in (1, 2, 3) for names_ in combinations_with_replacement(names, count)]
    pairs = [*((product, ()) for product in products), *combinations(products, 2)]
    solutions = [found for first, second in pairs if (found := _factors(values, sizes, first, second)) is not None]
    solutions += [found for pair in combinations(products, 2) if (found := _with_constant(values, sizes, *pair))]
    return min(solutions, key=_complexity, default=None)


def _with_constant(
    values: Sequence[int], sizes: Sequence[Mapping[str, int]], first: tuple[str, ...], second: tuple[str, ...]
) -> Formula | None:
    """The sum of these two products and a constant, if it gives all values."""
    rest = {
        value - prod(each[n] for n in first) - prod(each[n] for n in second)
        for value, each in zip(values, sizes, strict=True)
    }
    return (Term(1, 1, first), Term(1, 1, second), Term(rest.pop(), 1, ())) if len(rest) == 1 else None


def _factors(
    values: Sequence[int], sizes: Sequence[Mapping[str, int]], first: tuple[str, ...], second: tuple[str, ...]
) -> Formula | None:
    """The formula with these two products (the second may be empty, for a constant), if it gives all values."""
    rows = [(prod(each[name] for name in first), prod(each[name] for name in second)) for each in sizes]
    (a, b), (c, d) = rows[:2]
    determinant = a * d - b * c
    if not determinant:
        return None
    one = Fraction(values[0] * d - b * values[1], determinant)
    other = Fraction(a * values[1] - values[0] * c, determinant)
    is_small = all(_is_small(factor) for factor in ((one, other) if second else (one,)))
    if not is_small or any(one * m + other * n != value for (m, n), value in zip(rows, values, strict=True)):
        return None
    factors = ((one, first), (other, second))
    return tuple(Term(factor.numerator, factor.denominator, names) for factor, names in factors if factor)


def _is_small(factor: Fraction) -> bool:
    return abs(factor.numerator) <= LARGEST_FACTOR and factor.denominator <= LARGEST_FACTOR


def _complexity(formula: Formula) -> tuple[int, int]:
    """Fewer names come first, and then smaller factors."""
    factors = sum(abs(term.numerator) + term.denominator for term in formula if term.names)
    return sum(len(term.names) for term in formula), factors


def _is_other(values: Sequence[int], sizes: Sequence[Sizes]) -> Iterator[bool]:
    for value, each in zip(values[1:], sizes[1:], strict=True):
        yield sizes[0].replace(values[0], each.primes) != value


def _literals(graph: fx.Graph) -> Iterator[int]:
    """All whole numbers in the arguments and shapes of a graph, always in the same order."""
    for node in graph.nodes:
        for leaf in pytree.tree_leaves((node.args, dict(node.kwargs))):
            if isinstance(leaf, int) and not isinstance(leaf, bool):
                yield leaf
        for value in pytree.tree_leaves(node.meta.get("val")):
            if isinstance(value, Tensor):
                yield from value.shape
