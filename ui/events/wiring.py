"""Registers events of the page; handlers refer to components by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import gradio as gr

from ui.events.handlers import Update
from ui.panels.inputs import START, Components

QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}


class Wiring:
    """The components of a page; `on` registers an event."""

    def __init__(self, parts: Components, fields: Sequence[str]) -> None:
        self.parts = parts
        self.fields = tuple(fields)

    def on(
        self,
        event: Callable[..., Any],
        answer: Callable[..., Any],
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
        **settings: Any,
    ) -> Any:
        """Registers a handler: `answer` takes the named components' values in order and returns (or yields) an Update.

        The handler is not an API endpoint; the API has its own functions. Gradio's progress display on outputs is off.
        An event that comes while the last one is still being answered is answered afterwards. Gradio would drop it.
        """
        return event(
            self.by_component(answer),
            inputs=[self.parts[name] for name in inputs],
            outputs=[self.parts[name] for name in dict.fromkeys(outputs)],
            **{**QUIET, "concurrency_limit": None, "trigger_mode": "always_last", **settings},
        )

    def on_start(self, name: str, answer: Callable[..., Any], inputs: Iterable[str], outputs: Iterable[str]) -> Any:
        """Lets the button with this name start a request, so that no click on it is lost (see start_request.js)."""
        button = self.parts[name]
        if START not in button.elem_classes:
            raise ValueError(f"The button {name} needs the class {START}.")
        started = self.on(button.click, answer, inputs, outputs, trigger_mode="once")
        ended = f"() => {{ window.ldStart.ended('{button.elem_id}'); }}"
        for end in (started.then, started.failure):  # the first does not come after an answer that failed
            end(None, js=ended, api_visibility="private")
        return started

    def any_of(self, names: Iterable[str], event: str) -> Callable[..., Any]:
        """Returns one event for several components, for `on`. A browser goes through all events for each component."""
        return partial(gr.on, [getattr(self.parts[name], event) for name in names])

    def apart(self, names: Iterable[str], event: str = "change") -> Callable[..., Any]:
        """Works like `any_of`, for components whose event others answer too.

        If an event comes during an answer, Gradio sends it once more afterwards, to all who answer it. Two of them
        would keep each other busy without end. So each listens to a step of its own that follows the event.
        """

        def connect(answer: Callable[..., Any], **settings: Any) -> Any:
            step = self.any_of(names, event)(None, js="() => {}", trigger_mode="multiple", api_visibility="private")
            return step.then(answer, **settings)

        return connect

    def with_form(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a handler that takes the form as one mapping, followed by any further values."""
        count = len(self.fields)
        if inspect.isgeneratorfunction(answer):

            def stream(*values: Any) -> Iterator[Update]:
                yield from answer(dict(zip(self.fields, values[:count], strict=True)), *values[count:])

            return stream
        return lambda *values: answer(dict(zip(self.fields, values[:count], strict=True)), *values[count:])

    def by_component(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        def translate(update: Update) -> dict[Any, Any]:
            # For an empty answer, gradio would clear every output.
            return {self.parts[name]: value for name, value in update.items()} or gr.skip()

        if inspect.isgeneratorfunction(answer):

            def stream(*values: Any) -> Iterator[dict[Any, Any]]:
                for update in answer(*values):
                    yield translate(update)

            return stream
        return lambda *values: translate(answer(*values))
