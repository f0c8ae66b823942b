"""Tests that garbage is collected again once the page is built, also after an error."""

from __future__ import annotations

import gc

import pytest

from ui.process import uncollected


def test_collection_is_paused_and_goes_on() -> None:
    with pytest.raises(ValueError, match="wrong"), uncollected():
        assert not gc.isenabled()
        raise ValueError("wrong")
    assert gc.isenabled()
    gc.unfreeze()
