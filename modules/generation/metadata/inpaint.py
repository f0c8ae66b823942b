"""Writes and reads a mask's settings under A1111's names, which leave out its own defaults."""

from __future__ import annotations

from typing import Any

from modules.core.errors import quoted
from modules.core.typed import Unreadable
from modules.generation.metadata.fields import Fields
from modules.generation.metadata.settings import Reader
from modules.generation.options import InitImage

BLUR, MODE, CONTENT, AREA, PADDING = (
    "Mask blur",
    "Mask mode",
    "Masked content",
    "Inpaint area",
    "Masked area padding",
)
MARKS = (BLUR, MODE, CONTENT, AREA, "Mask hash")  # a picture with one of these was made with a mask
MODES = {"inpaint masked": False, "inpaint not masked": True}
AREAS = {"whole picture": False, "only masked": True}
# A1111's names for what the masked part starts from.
CONTENTS = {"fill": "fill", "original": "original", "latent noise": "noise", "latent nothing": "empty"}


def mask_fields(init: InitImage) -> dict[str, str]:
    """Returns what A1111 would write for this mask; nothing without one."""
    if not init.is_masked:
        return {}
    info = {BLUR: str(init.mask_blur)} if init.mask_blur else {}
    if init.mask_invert:
        info[MODE] = "Inpaint not masked"
    if init.mask_content != "original":
        info[CONTENT] = next(name for name, ours in CONTENTS.items() if ours == init.mask_content)
    if init.only_masked:
        info |= {AREA: "Only masked", PADDING: str(init.mask_padding)}
    return info


def _named(field: str, values: dict[str, Any]) -> Reader:
    def read(fields: Fields) -> Any:
        name = fields.text(field)
        if name is None:
            return None
        if name.casefold() not in values:
            raise Unreadable(f"{quoted(name)} is not one of {', '.join(values)}")
        return values[name.casefold()]

    return read


READERS: dict[str, Reader] = {
    "mask_blur": lambda fields: fields.whole(BLUR),
    "mask_content": _named(CONTENT, CONTENTS),
    "mask_invert": _named(MODE, MODES),
    "only_masked": _named(AREA, AREAS),
    "mask_padding": lambda fields: fields.whole(PADDING),
}
