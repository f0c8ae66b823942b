"""Moves the slider under a number when the number changes; the other way round, a script does."""

from __future__ import annotations

from ui.events.wiring import Wiring
from ui.panels.form.numbers import USUAL


def connect_sliders(wiring: Wiring) -> None:
    for name in USUAL:
        number = wiring.parts[name]
        script = f"(value) => {{ window.ldSlide('{name}', value); }}"
        number.change(None, inputs=[number], js=script, api_visibility="private")
