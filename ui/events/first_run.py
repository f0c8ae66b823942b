"""Handles the download of a first checkpoint: buttons and progress."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import gradio as gr

from modules.catalog.models import has_own_checkpoint
from modules.catalog.starter import Download, StarterDownload
from modules.core.download import Offer, megabytes
from modules.core.errors import LightDiffusionError
from ui.events.handlers import REFRESH_SECONDS, Handlers, Update
from ui.panels import render

HELP = ("first_run", "first_hint", "examples")  # what is shown only while there is no other checkpoint
OUTPUTS = (
    *("starter_offer", "starter_ask", "starter_accept", "starter_stop", "starter_state", "starter_known"),
    *("checkpoint", "width", "height", "first_run", "first_hint", "examples"),
)


class FirstRun:
    """Handles the buttons; it downloads exactly the offer shown on the page."""

    def __init__(self, handlers: Handlers, starter: StarterDownload) -> None:
        self.handlers = handlers
        self.starter = starter
        self._built_own = has_own_checkpoint(handlers.folders)  # what the page is built for

    def ask(self) -> Update:
        try:
            offer = self.starter.ask()
        except LightDiffusionError as error:
            return {"starter_state": render.error_box(str(error))}
        button = gr.Button(f"Accept the licence and download {megabytes(offer.size)}", visible=True)
        return {
            "starter_known": offer,
            "starter_offer": self._describe(offer),
            "starter_accept": button,
            "starter_state": "",
        }

    def download(self, offer: Offer | None) -> Iterator[Update]:
        if offer is not None:
            yield from self._watch(self.starter.begin(offer))

    def stop(self) -> Update:
        if self.starter.latest is not None:
            self.starter.latest.cancel.cancel()
        return {"starter_stop": gr.Button(interactive=False)}

    def look(self) -> Update:
        """Shows the offer and the help as long as there is no other checkpoint, and any running download."""
        own, latest = has_own_checkpoint(self.handlers.folders), self.starter.latest
        is_running = latest is not None and latest.state == "running"
        shown = {"first_run": gr.Column(visible=not own), **demo_help(visible=not own)}
        return shown | {"download": "running" if is_running else ""}

    def opened(self) -> Update:
        """Returns the same for a page that opens, without what it shows already."""
        update = self.look()
        return update if update["download"] or has_own_checkpoint(self.handlers.folders) != self._built_own else {}

    def follow(self, state: str) -> Iterator[Update]:
        """Shows a running download after a reload or in another tab; leaving the page does not stop the download."""
        yield {}
        if state and self.starter.latest is not None:
            yield from self._watch(self.starter.latest)

    def _watch(self, download: Download) -> Iterator[Update]:
        yield {
            "starter_known": download.offer,
            "starter_offer": self._describe(download.offer),
            "starter_ask": gr.Button(interactive=False),
            "starter_accept": gr.Button(visible=False),
            "starter_stop": stop_button(download),
        }
        # A tab that is still being built loses what it is sent, so the button comes with each message.
        while not download.wait(REFRESH_SECONDS):
            yield {"starter_state": progress(download), "starter_stop": stop_button(download)}
        yield {
            "starter_ask": gr.Button(interactive=True),
            "starter_accept": gr.Button(visible=download.state != "done"),
            "starter_stop": gr.Button(visible=False),
            **self._outcome(download),
        }

    def _outcome(self, download: Download) -> Update:
        if download.state == "failed":
            return {"starter_state": render.error_box(download.error)}
        if download.state == "cancelled":
            words = f"Stopped after {megabytes(download.received)}; the next download resumes from there."
            return {"starter_state": render.note_box(words)}
        name = self.starter.model.name
        chosen = {**self.handlers.refresh()["checkpoint"], "value": name}
        words = f"{name} is downloaded and its SHA-256 is correct; the form now uses it."
        size = self.handlers.native_size(name)
        return {
            "starter_state": render.note_box(words),
            "checkpoint": chosen,
            **demo_help(visible=False),
            **size,
        }

    def _describe(self, offer: Offer) -> str:
        model = self.starter.model
        rows = {
            "File": escape(model.name),
            "Size": f"{megabytes(offer.size)} ({offer.size} bytes)",
            "SHA-256": f"<code>{escape(offer.sha256)}</code>, checked after the download",
            "From": escape(offer.url),
            "Licence": f'<a href="{escape(model.licence_url)}" target="_blank" rel="noreferrer">'
            f"{escape(model.licence)}</a>: read it before you accept it",
            "To": escape(str(self.starter.target)),
        }
        cells = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items())
        return f'<dl class="ld-facts">{cells}</dl>'


def demo_help(*, visible: bool) -> Update:
    """Shows what helps while there are only the demos: a note, and examples of what they know."""
    return {"first_hint": gr.HTML(visible=visible), "examples": gr.Column(visible=visible)}


def stop_button(download: Download) -> gr.Button:
    return gr.Button(visible=True, interactive=not download.cancel.cancelled)


def progress(download: Download) -> str:
    size = download.offer.size
    if download.received >= size:
        return render.bar(1.0, "Checking the SHA-256…")
    words = f"{megabytes(download.received)} of {megabytes(size)}"
    return render.bar(download.received / size, words)
