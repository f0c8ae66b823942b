"""Gradio is imported without writing stubs, whether or not other code has already imported it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from ui.quick_import import STUB_WRITER, WithoutStubs, import_gradio


def test_a_gradio_that_is_there_writes_no_more_stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ModuleType(STUB_WRITER)
    writer.create_or_modify_pyi = lambda *_: pytest.fail("wrote a stub")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))
    monkeypatch.setitem(sys.modules, STUB_WRITER, writer)
    before = list(sys.meta_path)
    import_gradio()
    assert writer.create_or_modify_pyi("class", "name") is None
    assert sys.meta_path == before


def test_an_import_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if gradio were not installed
    monkeypatch.delitem(sys.modules, "gradio")
    monkeypatch.setattr("ui.quick_import.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    before = list(sys.meta_path)
    with pytest.raises(ImportError):
        import_gradio()
    assert sys.meta_path == before


def test_other_modules_are_found_by_the_usual_finders() -> None:
    assert WithoutStubs().find_spec("gradio.blocks", None) is None
