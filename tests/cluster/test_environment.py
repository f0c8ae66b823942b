"""What Ray is told before it is imported: nothing leaves this machine, and a cluster's token is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modules.cluster.environment import TOKEN_MODE, TOKENS, prepare_import


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a token."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in (TOKEN_MODE, "RAY_USAGE_STATS_ENABLED", *TOKENS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def test_ray_reports_to_nobody_and_needs_no_token(home: Path) -> None:
    prepare_import()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0" and TOKEN_MODE not in os.environ


def test_a_token_is_shown(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("secret")
    prepare_import()
    assert os.environ[TOKEN_MODE] == "token"


def test_the_user_decides_about_tokens(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKENS[0], "secret")
    monkeypatch.setenv(TOKEN_MODE, "disabled")
    prepare_import()
    assert os.environ[TOKEN_MODE] == "disabled"
