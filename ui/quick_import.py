"""Imports gradio but skips writing its typing stubs (.pyi), which takes 1 s of the 2.5 s import."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from typing import Any

STUB_WRITER = "gradio.component_meta"


class WithoutStubs(MetaPathFinder):
    """Loads gradio's module that creates component classes, then disables its stub writer."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != STUB_WRITER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            write_no_stubs(module)

        spec.loader.exec_module = execute_and_patch
        return spec


def write_no_stubs(module: Any) -> None:
    module.create_or_modify_pyi = lambda *_: None


def import_gradio() -> None:
    """Imports gradio. Must run before any other import of gradio; later it only prevents stubs of our own classes."""
    if "gradio" in sys.modules:
        write_no_stubs(sys.modules[STUB_WRITER])
        return
    finder = WithoutStubs()
    sys.meta_path.insert(0, finder)
    try:
        import_module("gradio")
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
