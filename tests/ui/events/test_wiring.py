"""Tests how events and their answers are connected on the whole page."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.ui.conftest import arguments_for
from ui.app import build_app, make_handlers


def test_no_two_answers_keep_each_other_busy(tmp_path: Path) -> None:
    """Gradio repeats an event that came during an answer, to all who answer it: two of them would never end."""
    handlers = make_handlers(arguments_for(tmp_path))
    config: Any = build_app(handlers).get_config_file()
    handlers.queue.close()
    answers: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for one in config["dependencies"]:
        if one["backend_fn"] and one["trigger_mode"] == "always_last":
            for component, event in one["targets"]:
                if component is not None:  # those that follow another step are repeated alone
                    answers[component, event].append(one["id"])
    assert answers
    names = {part["id"]: part["props"].get("elem_id") or part["props"].get("label") for part in config["components"]}
    assert [names[key[0]] for key, ids in answers.items() if len(ids) > 1] == []
