"""Waiting threads sleep, unless the user says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.threads import OWN_CHOICES, SPINS, let_threads_sleep


@pytest.mark.parametrize("name", OWN_CHOICES)
def test_the_users_own_choice_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in OWN_CHOICES:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "active")
    let_threads_sleep()
    assert [os.environ.get(each) for each in OWN_CHOICES] == [
        "active" if each == name else None for each in OWN_CHOICES
    ]


@pytest.mark.parametrize("starter", ["cli.main", "ui.app"])
def test_a_front_door_asks_for_it_before_torch_is_imported(starter: str, project_root: Path) -> None:
    program = f"import os, sys; from {starter} import main; main(['--version']); assert 'torch' not in sys.modules; "
    program += "print(os.environ['GOMP_SPINCOUNT'])"
    variables = {name: value for name, value in os.environ.items() if name not in OWN_CHOICES}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project_root, env=variables, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith(f"{SPINS}\n"), done.stderr
