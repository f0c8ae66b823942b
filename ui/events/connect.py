"""Connects the page's events to their handlers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from modules.catalog.starter import StarterDownload
from ui.browser.scripts import RECALL_TASK, REMEMBER_TASK
from ui.events import few_steps
from ui.events.catalog.cards import connect_cards
from ui.events.catalog.checkpoint_line import connect_checkpoint_line
from ui.events.catalog.examples import connect_examples
from ui.events.comparing import Comparing
from ui.events.control_maps import ControlMaps
from ui.events.extras import connect_extras
from ui.events.first_run import HELP, OUTPUTS, FirstRun
from ui.events.handlers import Handlers, Update
from ui.events.opening import Opening, connect_opening
from ui.events.pictures.choosing import IN_TURN, connect_clicks, details_of
from ui.events.pictures.editors import connect_editor, shown_later
from ui.events.pictures.enlarging import Enlarging
from ui.events.pictures.history import connect_history
from ui.events.pictures.masking import connect_masking
from ui.events.pictures.recall import Recall
from ui.events.pictures.repainting import connect_repainting
from ui.events.pictures.several import connect_several
from ui.events.pictures.starring import connect_starring
from ui.events.pictures.thumbnail import connect_thumbnail
from ui.events.presets import connect_presets
from ui.events.prompt_length import PromptLength, connect_prompt_length
from ui.events.repeating import connect_generate
from ui.events.sliders import connect_sliders
from ui.events.styles import Styles, connect_styles
from ui.events.wiring import Wiring
from ui.fields import (
    CONTROL_SLOTS,
    IMAGE_FIELDS,
    IMAGE_MODE,
    LORA_SLOTS,
    MESSAGES,
    TEXT_FIELDS,
    TEXT_MODE,
)
from ui.panels.inputs import Components
from ui.panels.sections import LORAS, OFF, SPOKEN_OF, TITLES, section_updates

RUNNING = (*MESSAGES, "control_panel", "stage", "task", "cancel", "skip", "memory", "stable_fast_status")
RUN = (*RUNNING, "own_form", "preview", "gallery", "empty", "paths", "panels")
SIZE = ("checkpoint", "width", "height")  # the fields that affect "Shape"
LORA_ROWS = tuple(f"lora_{slot}_row" for slot in range(2, LORA_SLOTS + 1))


def connect(
    parts: Components, handlers: Handlers, starter: StarterDownload, page: Any, values: Mapping[str, Any]
) -> None:
    """Connects all events of the page; `page` is the Blocks built with `values`."""
    wiring = Wiring(parts, list(handlers.fresh()))
    filled = [name for name in wiring.fields if name not in (*IMAGE_FIELDS, "mode")]
    opening = Opening(handlers, values, filled)
    connect_runs(wiring, handlers)
    connect_form(wiring, handlers)
    connect_sections(wiring)
    connect_sliders(wiring)
    connect_styles(wiring, Styles(handlers.folders))
    connect_prompt_length(wiring, PromptLength(handlers.folders))
    for slot in range(1, CONTROL_SLOTS + 1):
        connect_control(wiring, slot)
    connect_few_steps(wiring, few_steps.FewSteps(handlers.folders), opening)
    recall = Recall(handlers)
    connect_details(wiring, handlers, recall, "picture")
    connect_details(wiring, handlers, recall, "history")
    for panel in ("picture", "history"):
        connect_thumbnail(wiring, handlers, panel)
    connect_choosing(wiring, handlers, recall)
    connect_history(wiring, handlers)
    connect_starring(wiring, handlers)
    connect_several(wiring, handlers)
    connect_restoring(wiring, recall)
    connect_masking(wiring, handlers.output.folder)
    connect_repainting(wiring, handlers, (*RUN, *details_of("picture")))
    connect_extras(wiring, handlers, RUNNING)
    connect_first_run(wiring, FirstRun(handlers, starter), opening)
    connect_cards(wiring, handlers)
    connect_checkpoint_line(wiring, handlers.folders, opening)
    connect_examples(wiring, handlers)
    connect_presets(wiring, handlers, opening, LORA_ROWS)
    connect_opening(wiring, opening, page, filled)
    connect_page(wiring, handlers, page)


def connect_page(wiring: Wiring, handlers: Handlers, page: Any) -> None:
    task, last = wiring.parts["task"], wiring.parts["last_task"]
    page.load(None, outputs=[last], js=RECALL_TASK, api_visibility="private")
    wiring.on(last.change, handlers.follow, ("last_task",), (*RUN, *details_of("picture")))
    task.change(None, inputs=[task], js=REMEMBER_TASK, api_visibility="private")
    wiring.on(wiring.parts["clock"].tick, handlers.memory, (), ("memory",), queue=False)
    wiring.on(wiring.parts["free"].click, handlers.free, (), ("memory",))


def connect_runs(wiring: Wiring, handlers: Handlers) -> None:
    parts, comparing = wiring.parts, Comparing(handlers)
    connect_generate(wiring, handlers, (*RUN, *details_of("picture")))
    wiring.on(parts["skip"].click, handlers.skip, ("task",), ("skip",), queue=False)
    wiring.on(parts["cancel"].click, handlers.cancel, ("task",), ("cancel",), queue=False)
    running = (*RUNNING, "compare_preview")
    compared = (*running, "slider", "compare_result")
    wiring.on_start("compare", wiring.with_form(comparing.compare), wiring.fields, compared)
    axes = ("across", "across_values", "down", "down_values")
    inputs, sheet = (*wiring.fields, *axes), (*running, "sheet")
    wiring.on_start("grid", wiring.with_form(comparing.grid), inputs, sheet)


def connect_form(wiring: Wiring, handlers: Handlers) -> None:
    parts, on = wiring.parts, wiring.on
    on(wiring.apart(("refresh",), "click"), handlers.refresh, (), file_lists(wiring), queue=False)
    on(wiring.apart(("checkpoint",)), handlers.hint, ("checkpoint",), ("prompt",), queue=False)
    on(wiring.apart(SIZE), handlers.shapes, SIZE, ("preset",), queue=False)
    on(parts["checkpoint"].input, handlers.fitting_size, SIZE, ("width", "height"), queue=False)
    on(parts["preset"].input, handlers.set_shape, ("preset", *SIZE), ("width", "height", "preset"), queue=False)
    on(parts["swap"].click, swap_sides, ("width", "height"), ("width", "height"), queue=False)
    on(parts["editor"].upload, lambda: {"init_message": ""}, (), ("init_message",), queue=False)
    on(parts["dice"].click, lambda: {"seed": ""}, (), ("seed",), queue=False)
    on(parts["reuse"].click, handlers.last_seed, (), ("seed", "message"), queue=False)
    on(parts["text_tab"].select, lambda: {"mode": TEXT_MODE}, (), ("mode",), queue=False)
    on(parts["image_tab"].select, lambda: {"mode": IMAGE_MODE}, (), ("mode",), queue=False)
    rows = wiring.with_form(handlers.lora_rows)
    on(wiring.apart(LORAS), rows, wiring.fields, LORA_ROWS, queue=False)


def connect_sections(wiring: Wiring) -> None:
    headers = (*TITLES, *(f"{name}_off" for name in TITLES))

    def answer(*values: Any) -> Update:
        return section_updates(dict(zip(SPOKEN_OF, values, strict=True)))

    wiring.on(wiring.apart(SPOKEN_OF), answer, SPOKEN_OF, headers, queue=False)
    for name, values in OFF.items():
        wiring.on(wiring.parts[f"{name}_off"].click, partial(dict, values), (), values, queue=False)


def connect_control(wiring: Wiring, slot: int) -> None:
    maps, name = ControlMaps(slot), f"control_{slot}"
    image, preprocessor = f"{name}_image", f"{name}_preprocessor"
    for event in (wiring.parts[name].input, wiring.parts[image].upload):
        wiring.on(event, maps.preselect, (name, preprocessor, image), (preprocessor,), queue=False)
    wiring.on(wiring.apart((image,)), lambda: {"control_message": ""}, (), ("control_message",), queue=False)
    shown = (preprocessor, image, "width", "height")
    wiring.on(wiring.apart(shown), maps.show, shown, (f"{name}_map",), queue=False)


def connect_few_steps(wiring: Wiring, offers: few_steps.FewSteps, opening: Opening) -> None:
    parts, looking = wiring.parts, (*few_steps.SETTINGS, *few_steps.FILES)
    opening.add(lambda values: offers.look(*(values[name] for name in looking)), few_steps.OUTPUTS)
    wiring.on(wiring.apart(looking), offers.look, looking, few_steps.OUTPUTS, queue=False)
    wiring.on(parts["offer_use"].click, offers.use, few_steps.FILES, few_steps.SETTINGS, queue=False)


def file_lists(wiring: Wiring) -> tuple[str, ...]:
    """Returns the names of lists of files."""
    slots = tuple(name for name in wiring.fields if name.removeprefix("lora_").removeprefix("control_").isdecimal())
    return ("checkpoint", "vae", *TEXT_FIELDS, "refiner", "hires_method", "tiled_method", "extras_method", *slots)


def connect_details(wiring: Wiring, handlers: Handlers, recall: Recall, panel: str) -> None:
    parts, on = wiring.parts, wiring.on
    chosen, message = f"{panel}_chosen", f"{panel}_message"
    form = (*wiring.fields, "modes", "mask_panel", *LORA_ROWS, "message", message, "editor_path")
    use = shown_later(partial(recall.use, panel), "editor")
    connect_editor(wiring, on(parts[f"{panel}_use"].click, use, (chosen,), form, queue=False), "editor")
    enlarge = wiring.with_form(partial(Enlarging(handlers).enlarge, panel))
    wiring.on_start(f"{panel}_hires", enlarge, (*wiring.fields, chosen), (*RUN, *details_of("picture")))
    to_init = ("editor", "editor_path", "mask_file", "mode", "modes", message)
    start = shown_later(partial(recall.to_init, panel), "editor")
    connect_editor(wiring, on(parts[f"{panel}_init"].click, start, (chosen,), to_init, queue=False), "editor")
    to_control = ("control_1_image", "control_1_preprocessor", "control_panel", message)
    net = ("control_1", "control_1_preprocessor")
    on(parts[f"{panel}_control"].click, partial(recall.to_control, panel), (chosen, *net), to_control, queue=False)
    asked = (f"{panel}_confirm", f"{panel}_question")
    on(parts[f"{panel}_delete"].click, partial(recall.ask, panel), (chosen,), asked, queue=False)
    on(parts[f"{panel}_keep"].click, partial(recall.keep, panel), (), (f"{panel}_confirm",), queue=False)


def connect_choosing(wiring: Wiring, handlers: Handlers, recall: Recall) -> None:
    """Connects what only the pictures of the last request do: a click chooses one, and a deleted one leaves them."""
    details = details_of("picture")
    connect_clicks(wiring, "gallery", "paths", partial(handlers.choose, "picture"), details)
    after = (*details, "gallery", "paths", "empty", "stage")
    wiring.on(wiring.parts["picture_confirmed"].click, recall.delete, ("picture_chosen", "paths"), after, **IN_TURN)


def connect_restoring(wiring: Wiring, recall: Recall) -> None:
    fields = (*wiring.fields, "modes", "mask_panel", *LORA_ROWS, "message", "restore_message", "restore")
    restore, upload = shown_later(recall.restore, "editor"), wiring.parts["restore"].upload
    restored = wiring.on(upload, restore, ("restore",), (*fields, "editor_path"), queue=False)
    connect_editor(wiring, restored, "editor")


def connect_first_run(wiring: Wiring, first_run: FirstRun, opening: Opening) -> None:
    parts, on = wiring.parts, wiring.on
    opening.add(lambda _: first_run.opened(), (*HELP, "download"))
    on(parts["download"].change, first_run.follow, ("download",), OUTPUTS)
    on(wiring.apart(("refresh",), "click"), first_run.look, (), (*HELP, "download"))
    on(parts["starter_ask"].click, first_run.ask, (), OUTPUTS)
    on(parts["starter_accept"].click, first_run.download, ("starter_known",), OUTPUTS, trigger_mode="multiple")
    on(parts["starter_stop"].click, first_run.stop, (), ("starter_stop",), queue=False)


def swap_sides(width: int | None, height: int | None) -> Update:
    return {"width": height, "height": width}
