"""The implementation picked for a key."""

from __future__ import annotations

from modules.stable_fast.kernels.choices import ImplementationChoices


def test_a_choice_made_once_is_used_again():
    choices, calls = ImplementationChoices(), []
    choices.tuner = lambda op, key, implementations, default, args: calls.append(key) or "fast"
    table = {"slow": None, "fast": None}
    assert [choices.pick("op", (1,), table, "slow", ()) for _ in range(3)] == ["fast"] * 3
    assert calls == [(1,)]


def test_an_unknown_choice_falls_back_to_the_default():
    choices = ImplementationChoices()
    choices.chosen["op", (1,)] = "from an older version"
    assert choices.pick("op", (1,), {"slow": None}, "slow", ()) == "slow"


def test_nobody_is_asked_inside_and_the_same_tuner_after_it():
    choices, asked = ImplementationChoices(), []
    table = {"slow": None, "fast": None}
    with choices.asking(lambda op, key, *_: asked.append(key)):
        with choices.asking(None):
            assert choices.pick("op", (1,), table, "slow", ()) == "slow"
        choices.pick("op", (2,), table, "slow", ())
    assert asked == [(2,)] and choices.tuner is None
