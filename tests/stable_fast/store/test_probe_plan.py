"""Which implementations are timed at a new size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch

from modules.stable_fast.kernels.choices import ChoiceKey, ImplementationChoices
from modules.stable_fast.store import probe_plan
from modules.stable_fast.store.probe_plan import Call, Calls, Plan, Survey, plan_probes
from modules.stable_fast.store.tables import SHIPPED, read_choices
from tests.stable_fast.compile_matrix.cards import CARDS
from tests.stable_fast.compile_matrix.compiling import keys_on
from tests.stable_fast.compile_matrix.workload import Workload, calls_of_a_step

OP = "linear_epilogue"
NEAR = {OP: {(1024, 320): {"library": 2.0, "small": 1.0, "wide": 1.9}}}


def calls(*rows: int, count: int = 1, names: tuple[str, ...] = ("library", "small", "wide")) -> dict[Call, Calls]:
    return {(OP, (size, 320)): Calls(names, "library", "small", count) for size in rows}


def candidates(*names: str) -> dict[str, Callable[..., Any]]:
    return dict.fromkeys(names, print)


def test_only_calls_without_a_row_of_this_card_are_surveyed() -> None:
    choices = ImplementationChoices()
    survey, offered = Survey(choices), candidates("library", "small")
    choices.chosen[OP, (1, 320)] = "small"
    choices.learn_probes([(OP, (2, 320), {})])  # was not worth a probe
    choices.refuse(OP, (4, 320), "small", RuntimeError("no"))
    with choices.asking(survey):
        for rows in (1, 2, 3, 3, 4):
            choices.pick(OP, (rows, 320), offered, "library", ())
    assert {key[0]: (found.count, found.names) for (_, key), found in survey.calls.items()} == {
        3: (2, ("library", "small")),
        4: (1, ("library",)),
    }
    assert choices.chosen == {(OP, (1, 320)): "small"} and choices.tuner is None


def test_default_and_likely_are_timed_and_what_may_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_probes(calls(1100), NEAR) == {(OP, (1100, 320)): ("library", "small", "wide")}
    monkeypatch.setattr(probe_plan, "EACH", 2)
    assert plan_probes(calls(1100), NEAR) == {(OP, (1100, 320)): ("library", "small")}


def test_what_costs_most_is_probed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_plan, "SHAPES", 1)
    assert list(plan_probes(calls(1000, 2000), NEAR)) == [(OP, (2000, 320))]
    assert list(plan_probes(calls(1000, count=3) | calls(2000), NEAR)) == [(OP, (1000, 320))]


def test_what_was_never_measured_is_tried_but_positions_and_wrong_results_are_not() -> None:
    wrong = {OP: {(1024, 320): NEAR[OP][1024, 320] | {"wide": math.inf}}}
    names = ("library", "cublaslt_2", "wide", "new", "small")
    assert plan_probes(calls(1100, names=names), wrong) == {(OP, (1100, 320)): ("library", "small", "new")}


def test_other_classes_tell_only_where_the_own_class_does_not() -> None:
    elsewhere = {OP: {(1024, 320): {"library": 1.0}}}
    names = ("library", "small", "wide")
    assert plan_probes(calls(1100), {}, elsewhere) == {(OP, (1100, 320)): names}
    assert plan_probes(calls(1100), {}, {}) == {} == plan_probes(calls(10**6), NEAR, elsewhere)


def test_nothing_else_on_offer_is_not_probed() -> None:
    one = {(OP, (1100, 320)): Calls(("library",), "library", "library", 5)}
    assert plan_probes(one, NEAR) == {}


SIZES = [
    Workload("SD1.5", 512), Workload("SD1.5", 768), Workload("SD1.5", 1024), Workload("SD2.1", 768),
]  # fmt: skip
Rows = Mapping[Call, Mapping[str, float]]


def rows_of(table: str) -> Rows:
    rows = read_choices(SHIPPED / f"{table}.json")
    return {(row.op, row.key): row.of_right_results() for row in rows if min(row.milliseconds.values(), default=0.0)}


def by_op(rows: Rows, without: Iterable[Call]) -> dict[str, dict[ChoiceKey, Mapping[str, float]]]:
    left: dict[str, dict[ChoiceKey, Mapping[str, float]]] = {}
    for (op, key), times in rows.items():
        if (op, key) not in without:
            left.setdefault(op, {})[key] = {
                name: time for name, time in times.items() if not probe_plan.is_position(name)
            }
    return left


def step_over_best(rows: Rows, step: Mapping[Call, int], choices: ImplementationChoices, plan: Plan) -> float:
    """The time of a step after these probes, as a multiple of the best one's; calls without a row do not count."""
    choices.learn_probes(
        (*call, {name: rows[call][name] for name in plan.get(call, ()) if rows[call][name] < math.inf}) for call in step
    )
    picked = {call: choices.predict(*call, candidates(*rows[call])) or next(iter(rows[call])) for call in step}
    best = sum(count * min(rows[call].values()) for call, count in step.items())
    return sum(count * rows[call][picked[call]] for call, count in step.items()) / best


@pytest.mark.slow
@pytest.mark.parametrize("workload", SIZES, ids=str)
@pytest.mark.parametrize(("table", "card", "others"), [
    ("sm90-132", "H200", None), ("sm90-132", "H200", "class-mma"), ("class-mma", "RTX 4090", None),
    ("class-mma", "RTX 4090", "sm90-132"),
], ids=["left out of H200's", "H200 by class-mma", "left out of class-mma", "RTX 4090 by H200's"])  # fmt: skip
def test_by_the_tables_a_step_with_probes_is_near_the_best(
    workload: Workload, table: str, card: str, others: str | None
) -> None:
    """The size is left out of the table, or only a table of another class is known."""
    rows, choices = rows_of(table), ImplementationChoices()
    keys = keys_on(CARDS[card], calls_of_a_step(workload), torch.float16)
    step = {call: count for call, count in keys.items() if call in rows}
    if others is None:
        choices.measured = by_op(rows, step)
    survey = Survey(choices)
    for (op, key), count in step.items():
        offered = candidates(*rows[op, key])
        for _ in range(count):
            survey(op, key, offered, next(iter(offered)), ())  # rows begin with the default
    elsewhere = {} if others is None else by_op(rows_of(others), ())
    plan = plan_probes(survey.calls, choices.measured, elsewhere)
    assert sum(map(len, plan.values())) <= probe_plan.SHAPES * probe_plan.EACH
    assert step_over_best(rows, step, choices, plan) < 1.05
