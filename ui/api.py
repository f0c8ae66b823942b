"""The named endpoints for programs: typed functions, the same request as the form makes. docs/ui.md has examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api as add_endpoint

from modules.core.errors import LightDiffusionError
from modules.generation.options import default_of
from modules.generation.ticket import Ticket
from modules.generation.work import make_pictures
from ui.handlers import Handlers
from ui.requests import build_options


class Api:
    """Each public method is one endpoint of the same name."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def text_to_image(
        self,
        prompt: str,
        negative_prompt: str = "",
        width: int | None = None,
        height: int | None = None,
        number: int = 1,
        batch: int = 1,
        steps: int = default_of("steps"),
        cfg: float = default_of("cfg"),
        sampler: str = default_of("sampler"),
        scheduler: str = "karras",
        seed: str = "",
        checkpoint: str = "",
        stable_fast: bool = False,
        other: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Makes pictures; answers {"images": [{"path", "url"}], "seed", "stable_fast"}. `other` sets any other field of
        the form by name. An error is the sentence that the page would show."""
        given = {name: value for name, value in locals().items() if name not in ("self", "other")}
        fresh = self.handlers.fresh()
        given["checkpoint"] = checkpoint or fresh["checkpoint"]
        if checkpoint and (width is None or height is None):
            fresh |= self.handlers.native_size(checkpoint)
        given |= {"width": width or fresh["width"], "height": height or fresh["height"]}
        unknown = set(other or {}) - set(fresh)
        if unknown:
            raise gr.Error(f"There is no field called {', '.join(sorted(unknown))}.", print_exception=False)
        try:
            options = build_options({**fresh, **given, **(other or {})}, self.handlers.output.folder)
            ticket = self.handlers.queue.submit("", make_pictures(options, self.handlers.output))
        except LightDiffusionError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return answer(finish(ticket))

    def queue(self) -> list[dict[str, Any]]:
        """What runs and what waits, in order."""
        return [{"id": ticket.id, "state": ticket.state} for ticket in self.handlers.queue.unfinished()]

    def cancel(self, id: str) -> bool:
        """Stops one request of `queue` within one step; false when it is not there."""
        ticket = self.handlers.queue.find(id)
        self.handlers.cancel(id)
        return ticket is not None

    def models(self, kind: str = "checkpoints") -> list[str]:
        """Names of model files: checkpoints, vae, loras, embeddings, controlnet or upscalers."""
        try:
            return self.handlers.folders.list(kind)
        except LightDiffusionError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def defaults(self) -> dict[str, Any]:
        """Every field of the form with the value it has when nothing is said."""
        return self.handlers.fresh()


def finish(ticket: Ticket) -> Ticket:
    """Waits for the end; an error becomes the caller's error."""
    ticket.wait()
    if ticket.state != "done":
        raise gr.Error(ticket.error, print_exception=False)
    return ticket


def answer(ticket: Ticket) -> dict[str, Any]:
    return {"images": [str(Path(path)) for path in ticket.pictures], "seed": ticket.seed, "stable_fast": ticket.note}


def add_endpoints(handlers: Handlers) -> None:
    """Inside the Blocks that is open."""
    api = Api(handlers)
    for endpoint in (api.text_to_image, api.queue, api.cancel, api.models, api.defaults):
        add_endpoint(endpoint, api_name=endpoint.__name__, concurrency_limit=None)
