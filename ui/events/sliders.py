"""Moves the sliders under the numbers when a number changes; the other way round, a script does."""

from __future__ import annotations

import json

from ui.events.wiring import Wiring
from ui.panels.form.numbers import USUAL

SCRIPT = f"(...values) => {{ {json.dumps([*USUAL])}.forEach((name, at) => window.ldSlide(name, values[at])); }}"


def connect_sliders(wiring: Wiring) -> None:
    inputs = [wiring.parts[name] for name in USUAL]
    wiring.any_of(USUAL, "change")(None, inputs=inputs, js=SCRIPT, api_visibility="private")
