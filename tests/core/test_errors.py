"""Exit codes that scripts rely on, and the flag that stops a run."""

from __future__ import annotations

import threading

import pytest

from modules.core import errors
from modules.core.progress import CancelToken


def test_exit_codes_differ_and_never_mean_success() -> None:
    kinds = [kind for kind in errors.LightDiffusionError.__subclasses__() if kind.__module__ == errors.__name__]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes) >= 5
    assert 0 not in codes and errors.Cancelled.exit_code == 130  # a shell's code for Ctrl-C


def test_a_run_is_stopped_from_another_thread_and_stays_stopped() -> None:
    token = CancelToken()
    token.check()
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    assert token.cancelled
    for _ in range(2):
        with pytest.raises(errors.Cancelled, match="Cancelled"):
            token.check()


def test_a_skip_is_taken_once_and_counted_and_stops_nothing() -> None:
    token = CancelToken()
    assert not token.take_skip()
    token.skip()
    token.check()
    assert token.take_skip() and not token.take_skip() and token.skipped == 1
    token.skip()
    token.forget_skip()
    assert not token.take_skip() and token.skipped == 1
