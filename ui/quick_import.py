"""Imports gradio without what the page does not use: typing stubs, pandas, commands, other people's models, plots.

Writing the stubs takes 1 s of a 2.5 s import, and what else is left out 0.5 s of the rest. Where matplotlib is
installed, its import takes 0.6 s of the first answer. Whatever is asked for after all is imported then. The texts of
gradio's documentation, of which each event's is a template of its own, are not made.
"""

from __future__ import annotations

import inspect
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import LazyLoader, find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

STUB_WRITER = "gradio.component_meta"
EVENTS = "gradio.events"
LAZY = "pandas"  # for tables, and for statistics of requests
LATER = ("gradio.cli", "gradio.external", "gradio.workflow", "hf_gradio.cli")  # only functions are taken from these
NEVER = "httpx._main"  # a command with coloured output; httpx goes on without it
INSPECTING = ("gradio.blocks", "gradio.component_meta")  # they look at the same few classes again for each component


class Finder(MetaPathFinder):
    """Loads the modules that write gradio's stubs and documentation, then disables this; loads pandas when used."""

    def __init__(self) -> None:
        self._wanted = {STUB_WRITER, EVENTS, LAZY}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in self._wanted:
            return None
        self._wanted.remove(fullname)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        if fullname == LAZY:
            spec.loader = LazyLoader(spec.loader)
            return spec
        execute = spec.loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            (write_no_stubs if fullname == STUB_WRITER else document_no_events)(module)

        spec.loader.exec_module = execute_and_patch
        return spec


class Later(ModuleType):
    """Stands for a module while gradio is imported. Its functions import the real module when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(call_later, self.__name__, name)


def call_later(module: str, function: str, *arguments: Any, **settings: Any) -> Any:
    return getattr(import_module(module), function)(*arguments, **settings)


class NoPlots:
    """Takes the place of the switch to matplotlib's quiet backend, around each handler: the page draws no plots."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def write_no_stubs(module: Any) -> None:
    module.create_or_modify_pyi = lambda *_: None


def document_no_events(module: Any) -> None:
    module.EventListener.set_doc = lambda *_, **__: None


@contextmanager
def built_when_used() -> Iterator[None]:
    """Lets pydantic build validators when they are first used, which those of FastAPI's documentation never are."""
    from pydantic import BaseModel

    had = BaseModel.model_config.get("defer_build", False)
    BaseModel.model_config["defer_build"] = True
    try:
        yield
    finally:
        BaseModel.model_config["defer_build"] = had


@contextmanager
def certificates_read_once() -> Iterator[None]:
    """Lets the HTTP clients that gradio creates share their certificates."""
    create = ssl.create_default_context
    ssl.create_default_context = lru_cache(maxsize=None)(create)
    try:
        yield
    finally:
        ssl.create_default_context = create


def import_gradio() -> None:
    """Imports gradio. Must run before any other import of gradio; later it only prevents stubs of our own classes."""
    if "gradio" in sys.modules:
        write_no_stubs(sys.modules[STUB_WRITER])
        return
    finder = Finder()
    sys.meta_path.insert(0, finder)
    stand_ins: dict[str, ModuleType | None] = {name: Later(name) for name in LATER if name not in sys.modules}
    if NEVER not in sys.modules:
        stand_ins[NEVER] = None
    sys.modules.update(stand_ins)  # type: ignore[arg-type]  # None stands for a module that cannot be imported
    try:
        with built_when_used():
            import_module("fastapi")
        with certificates_read_once():
            import_module("gradio")
    finally:
        sys.meta_path.remove(finder)
        for name in stand_ins:
            del sys.modules[name]
    lighten()


def lighten() -> None:
    """Replaces parts of gradio that take time for nothing on our page."""
    utils: Any = import_module("gradio.utils")
    utils.MatplotlibBackendMananger = NoPlots
    remembered = {name: lru_cache(maxsize=None)(getattr(inspect, name)) for name in ("signature", "getfullargspec")}
    for name in INSPECTING:
        module: Any = import_module(name)
        module.inspect = SimpleNamespace(**vars(inspect) | remembered)


@contextmanager
def one_server() -> Iterator[None]:
    """Lets gradio create its server's app only when the page is launched. Building a page would create two more."""
    from gradio.routes import App

    create = App.create_app
    App.create_app = staticmethod(lambda *_, **__: None)  # type: ignore[assignment]
    try:
        yield
    finally:
        App.create_app = staticmethod(create)  # type: ignore[assignment]
