"""Connects the page's events to their handlers; handlers refer to components by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from modules.catalog.starter import StarterDownload
from ui.events import few_steps
from ui.events.comparing import Comparing
from ui.events.first_run import OUTPUTS, FirstRun
from ui.events.handlers import Handlers, Update
from ui.events.recall import Recall
from ui.fields import IMAGE_FIELDS, IMAGE_MODE, LORA_SLOTS, TEXT_FIELDS, TEXT_MODE
from ui.panels.form import Components
from ui.panels.scripts import FILL_UNTOUCHED, MARK_READY, RECALL_TASK, REMEMBER_TASK, SHOW_ERROR, SHOW_STAGE

RUN = ("message", "stage", "gallery", "empty", "paths", "task", "cancel", "panels", "stable_fast_status")
SIZE = ("checkpoint", "width", "height")  # the fields that affect "Shape"
HISTORY = (
    *("history_gallery", "history_paths", "history_words", "page", "older", "newer"),
    *("history_details", "history_confirm"),
)
# Events of picture lists, as well as clicks and deletions in the lists, are handled in order.
IN_TURN = {"concurrency_id": "history", "concurrency_limit": 1}
LORA_ROWS = tuple(f"lora_{slot}_row" for slot in range(2, LORA_SLOTS + 1))


def details_of(panel: str) -> tuple[str, ...]:
    return tuple(f"{panel}_{part}" for part in ("chosen", "text", "details", "confirm", "message"))


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
        """
        return event(
            self.by_component(answer),
            inputs=[self.parts[name] for name in inputs],
            outputs=[self.parts[name] for name in dict.fromkeys(outputs)],
            **{"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None, **settings},
        )

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


def connect(
    parts: Components, handlers: Handlers, starter: StarterDownload, page: Any, values: Mapping[str, Any]
) -> None:
    """Connects all events of the page; `page` is the Blocks built with `values`."""
    wiring = Wiring(parts, list(handlers.fresh()))
    connect_page(wiring, handlers, page, values)
    connect_runs(wiring, handlers)
    connect_form(wiring, handlers)
    connect_few_steps(wiring, few_steps.FewSteps(handlers.folders), page)
    recall = Recall(handlers)
    connect_details(wiring, handlers, recall, "picture")
    connect_details(wiring, handlers, recall, "history")
    connect_history(wiring, handlers, recall)
    connect_first_run(wiring, FirstRun(handlers, starter), page)


def connect_page(wiring: Wiring, handlers: Handlers, page: Any, values: Mapping[str, Any]) -> None:
    filled = [name for name in wiring.fields if name not in (*IMAGE_FIELDS, "mode")]
    follow = (*RUN, *details_of("picture"))
    answer = partial(handlers.open_page, {name: values[name] for name in filled})
    lists = (*file_lists(wiring), "prompt", "remembered", *LORA_ROWS)
    opened = wiring.on(page.load, answer, (), lists, queue=False)
    shown = [wiring.parts[name] for name in filled]
    remembered = wiring.parts["remembered"]
    filling = opened.then(None, [remembered, *shown], shown, js=FILL_UNTOUCHED, api_visibility="private")
    filling.then(None, js=MARK_READY, api_visibility="private")
    wiring.on(filling.then, handlers.shapes, SIZE, ("preset",), queue=False)
    wiring.on(page.load, handlers.follow, ("task",), follow, js=RECALL_TASK)
    wiring.parts["task"].change(None, inputs=[wiring.parts["task"]], js=REMEMBER_TASK, api_visibility="private")
    wiring.on(wiring.parts["clock"].tick, handlers.memory, (), ("memory",), queue=False)
    wiring.on(wiring.parts["free"].click, handlers.free, (), ("memory",))


def connect_runs(wiring: Wiring, handlers: Handlers) -> None:
    parts, comparing = wiring.parts, Comparing(handlers)
    outputs = (*RUN, *details_of("picture"))
    wiring.on(parts["generate"].click, wiring.with_form(handlers.generate), wiring.fields, outputs, trigger_mode="once")
    parts["generate"].click(None, js=SHOW_STAGE, api_visibility="private")
    for message in ("message", "compare_message"):
        parts[message].change(None, js=SHOW_ERROR, api_visibility="private")
    wiring.on(parts["cancel"].click, handlers.cancel, ("task",), ("cancel",), queue=False)
    running = ("message", "stage", "task", "cancel", "stable_fast_status", "compare_message")
    compared = (*running, "slider", "compare_result")
    wiring.on(parts["compare"].click, wiring.with_form(comparing.compare), wiring.fields, compared, trigger_mode="once")
    axes = ("across", "across_values", "down", "down_values")
    sheet = (*running, "sheet")
    inputs = (*wiring.fields, *axes)
    wiring.on(parts["grid"].click, wiring.with_form(comparing.grid), inputs, sheet, trigger_mode="once")


def connect_form(wiring: Wiring, handlers: Handlers) -> None:
    parts, on = wiring.parts, wiring.on
    on(parts["refresh"].click, handlers.refresh, (), file_lists(wiring), queue=False)
    on(parts["checkpoint"].change, handlers.hint, ("checkpoint",), ("prompt",), queue=False)
    for name in SIZE:
        on(parts[name].change, handlers.shapes, SIZE, ("preset",), queue=False, trigger_mode="always_last")
    on(parts["checkpoint"].input, handlers.native_size, ("checkpoint",), ("width", "height"), queue=False)
    on(parts["preset"].input, set_shape, ("preset",), ("width", "height"), queue=False)
    on(parts["swap"].click, swap_sides, ("width", "height"), ("width", "height"), queue=False)
    on(parts["dice"].click, lambda: {"seed": ""}, (), ("seed",), queue=False)
    on(parts["reuse"].click, handlers.last_seed, (), ("seed", "message"), queue=False)
    on(parts["text_tab"].select, lambda: {"mode": TEXT_MODE}, (), ("mode",), queue=False)
    on(parts["image_tab"].select, lambda: {"mode": IMAGE_MODE}, (), ("mode",), queue=False)
    for slot in range(1, LORA_SLOTS + 1):
        rows = wiring.with_form(handlers.lora_rows)
        on(parts[f"lora_{slot}"].change, rows, wiring.fields, LORA_ROWS, queue=False)


def connect_few_steps(wiring: Wiring, offers: few_steps.FewSteps, page: Any) -> None:
    parts, looking = wiring.parts, (*few_steps.SETTINGS, *few_steps.FILES)
    for event in (page.load, *(parts[name].change for name in looking)):
        wiring.on(event, offers.look, looking, few_steps.OUTPUTS, queue=False)
    wiring.on(parts["offer_use"].click, offers.use, few_steps.FILES, few_steps.SETTINGS, queue=False)


def file_lists(wiring: Wiring) -> tuple[str, ...]:
    """Returns the names of fields that list files."""
    slots = tuple(name for name in wiring.fields if name.removeprefix("lora_").removeprefix("control_").isdecimal())
    return ("checkpoint", "vae", *TEXT_FIELDS, "hires_method", *slots)


def connect_details(wiring: Wiring, handlers: Handlers, recall: Recall, panel: str) -> None:
    parts, on = wiring.parts, wiring.on
    chosen, message = f"{panel}_chosen", f"{panel}_message"
    paths, gallery = ("paths", "gallery") if panel == "picture" else ("history_paths", "history_gallery")
    parts[gallery].select(
        choose_in(wiring, handlers, panel),
        inputs=[parts[paths]],
        outputs=[parts[name] for name in details_of(panel)],
        show_progress="hidden",
        api_visibility="private",
        **IN_TURN,
    )
    form = (*wiring.fields, "modes", *LORA_ROWS, message)
    on(parts[f"{panel}_use"].click, partial(recall.use, panel), (chosen,), form)
    on(parts[f"{panel}_hires"].click, partial(recall.to_hires, panel), (chosen,), (*form, "hires_panel"))
    on(parts[f"{panel}_init"].click, partial(recall.to_init, panel), (chosen,), ("editor", "mode", "modes", message))
    to_control = ("control_1_image", "control_panel", message)
    on(parts[f"{panel}_control"].click, partial(recall.to_control, panel), (chosen,), to_control)
    on(parts[f"{panel}_delete"].click, partial(recall.ask, panel), (), (f"{panel}_confirm",), queue=False)
    on(parts[f"{panel}_keep"].click, partial(recall.keep, panel), (), (f"{panel}_confirm",), queue=False)
    after = (*details_of(panel), gallery, paths, "empty", *HISTORY)
    on(
        parts[f"{panel}_confirmed"].click,
        partial(recall.delete, panel),
        (chosen, paths, "search", "page"),
        after,
        **IN_TURN,
    )


def connect_history(wiring: Wiring, handlers: Handlers, recall: Recall) -> None:
    parts, on = wiring.parts, partial(wiring.on, **IN_TURN)
    looking = ("search", "page", "history_paths")
    on(parts["history_tab"].select, recall.look, looking, HISTORY)
    on(parts["search"].change, recall.search, looking, HISTORY, trigger_mode="always_last")
    on(parts["older"].click, recall.older, looking, HISTORY)
    on(parts["newer"].click, recall.newer, looking, HISTORY)
    fields = (*wiring.fields, "modes", *LORA_ROWS, "message", "restore")
    wiring.on(parts["restore"].upload, recall.restore, ("restore",), fields)


def connect_first_run(wiring: Wiring, first_run: FirstRun, page: Any) -> None:
    parts, on = wiring.parts, wiring.on
    on(page.load, first_run.open_page, (), OUTPUTS)
    on(parts["refresh"].click, first_run.open_page, (), OUTPUTS)
    on(parts["starter_ask"].click, first_run.ask, (), OUTPUTS)
    on(parts["starter_accept"].click, first_run.download, ("starter_known",), OUTPUTS)
    on(parts["starter_stop"].click, first_run.stop, (), ("starter_stop",), queue=False)


def choose_in(wiring: Wiring, handlers: Handlers, panel: str) -> Callable[..., Any]:
    """Returns a handler for clicked pictures; Gradio passes the index and file name in a gr.SelectData parameter."""

    def choose(paths: list[str], event: gr.SelectData) -> dict[Any, Any]:
        clicked = paths[event.index] if event.index < len(paths) else ""
        if Path(clicked).name != event.value["image"]["orig_name"]:  # the list changed before the click arrived
            return gr.skip()
        return wiring.by_component(handlers.choose)(panel, clicked)

    return choose


def set_shape(shape: str | None) -> Update:
    if not shape:
        return {}
    width, _, height = shape.partition("x")
    return {"width": int(width), "height": int(height)}


def swap_sides(width: int | None, height: int | None) -> Update:
    return {"width": height, "height": width}
