"""Browser tabs for tests: watched for errors, and given back for the next test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.ui.conftest import Form, Served

VIEWPORT = {"width": 1280, "height": 800}
# What put_back sets, beside the switches and tabs.
FRESH = {"Negative prompt": "", "Width": "128", "Height": "128", "CFG": "7", "Seed": ""}
FRESH |= {"Batch count": "1", "Batch size": "1"}
# In a slow browser, Gradio's mask editor handles a picture or a size before its own canvas is set up. The editor
# redraws afterwards, so nothing is lost, and a page cannot prevent the error.
GRADIOS_OWN_RACE = (
    "Cannot read properties of undefined (reading 'reset_layers')",
    "Cannot read properties of undefined (reading 'dimensions')",
)


def wait_until_ready(page: Any) -> None:
    """Waits for the mark that the page sets after the load event, which brings the form's last values."""
    page.locator("body[data-ld-ready]").wait_for()


class Watch:
    """Opens browser tabs, and notes requests to other servers and errors of their scripts."""

    def __init__(self, context: Any, served: Served) -> None:
        self.context, self.served = context, served
        self.strangers: list[str] = []
        self.errors: list[str] = []

    def open(self) -> Any:
        page = self.context.new_page()
        page.on("request", self.note_request)
        page.on("pageerror", self.note_error)
        page.goto(self.served.url)
        wait_until_ready(page)
        return page

    def note_request(self, request: Any) -> None:
        if not request.url.startswith((self.served.url, "data:", "blob:")):
            self.strangers.append(request.url)

    def note_error(self, error: Any) -> None:
        if str(error) not in GRADIOS_OWN_RACE:
            self.errors.append(str(error))

    def nothing_noted(self) -> bool:
        return not self.strangers and not self.errors

    def end(self) -> None:
        """Stops what a test has left in the queue, and checks what was noted."""
        for queued in self.served.handlers.queue.unfinished():
            queued.cancel.cancel()
        strangers, errors, self.strangers, self.errors = self.strangers, self.errors, [], []
        assert not strangers and not errors, f"asked {strangers}; errors {errors}"


def put_back(form: Form) -> None:
    """Gives a page the size, tabs and form of a fresh one."""
    page = form.page
    page.set_viewport_size(VIEWPORT)
    words = page.locator("#ld-search textarea, #ld-search input")
    if words.count() and words.first.input_value():
        form.search("")
    for tab in ("Pictures", "Text to image"):
        form.show(tab)
    in_force = page.locator("#ld-form [id$=-panel-off]:visible")
    while left := in_force.count():
        in_force.first.click()
        expect(in_force).to_have_count(left - 1)
    form.field("Stable-Fast").uncheck()
    for label, value in FRESH.items():
        if form.field(label).input_value() != value:
            form.fill(label, value)
    page.evaluate("document.querySelector('#ld-stage .ld-words').textContent = 'Ready.'")
