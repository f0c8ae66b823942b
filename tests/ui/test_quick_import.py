"""Gradio is imported without writing stubs, whether or not other code has already imported it."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from ui.quick_import import LATER, STUB_WRITER, Finder, Later, import_gradio


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
    assert Finder().find_spec("gradio.blocks", None) is None


def test_a_function_of_a_module_that_was_left_out_imports_it() -> None:
    assert Later("json").dumps([1]) == "[1]"


def test_what_the_page_does_not_use_is_not_imported() -> None:
    code = f"""
import sys
from ui.quick_import import import_gradio
import_gradio()
import gradio
left = ("matplotlib", "pandas.core", "huggingface_hub.inference", "rich", *{LATER!r})
assert not [name for name in left if name in sys.modules], sorted(sys.modules)
import pandas
assert pandas.DataFrame([1]).shape == (1, 1)
from gradio.cli import deploy
assert callable(deploy) and not isinstance(deploy, type(gradio.deploy))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
