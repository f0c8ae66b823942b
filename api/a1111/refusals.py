"""What A1111 can do and we cannot: refused by name when it is switched on, ignored when it is neutral."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.core.errors import OptionsError, shortened


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """A field without a counterpart here. A value in `neutral`, or that of the field `same_as`, changes nothing."""

    name: str
    neutral: tuple[Any, ...]
    same_as: str = ""
    instead: str = "leave it out"

    def check(self, values: Mapping[str, Any]) -> None:
        """Raises OptionsError for a value that would change the picture."""
        value = values.get(self.name)
        if value is not None and value not in self.neutral and value != values.get(self.same_as):
            raise OptionsError(f"{self.name} {shortened(json.dumps(value))} is not supported here; {self.instead}.")


NOTHING = ("", "None", "none", False)
UNSUPPORTED = (
    Unsupported(name="subseed_strength", neutral=(0,)),
    Unsupported(name="seed_resize_from_w", neutral=(0, -1)),
    Unsupported(name="seed_resize_from_h", neutral=(0, -1)),
    Unsupported(name="tiling", neutral=(False,)),
    Unsupported(name="restore_faces", neutral=(False,)),
    Unsupported(name="script_name", neutral=NOTHING),
    Unsupported(name="disable_extra_networks", neutral=(False,), instead="leave the <lora:...> tags out"),
    Unsupported(name="eta", neutral=(1,)),
    Unsupported(name="s_churn", neutral=(0,)),
    Unsupported(name="s_min_uncond", neutral=(0,)),
    Unsupported(name="s_noise", neutral=(1,)),
    Unsupported(name="firstphase_width", neutral=(0,), instead="give width, and hr_resize_x"),
    Unsupported(name="firstphase_height", neutral=(0,), instead="give height, and hr_resize_y"),
    Unsupported(name="infotext", neutral=("",), instead="give the fields one by one"),
)
HIRES_UNSUPPORTED = (
    Unsupported(name="hr_checkpoint_name", neutral=(*NOTHING, "Use same checkpoint")),
    Unsupported(name="hr_prompt", neutral=("",), same_as="prompt"),
    Unsupported(name="hr_negative_prompt", neutral=("",), same_as="negative_prompt"),
)
IMAGE_UNSUPPORTED = (
    Unsupported(name="initial_noise_multiplier", neutral=(1,)),
    Unsupported(name="mask_blur_x", neutral=(4,), same_as="mask_blur", instead="give mask_blur"),
    Unsupported(name="mask_blur_y", neutral=(4,), same_as="mask_blur", instead="give mask_blur"),
    Unsupported(name="latent_mask", neutral=("",), instead="give mask"),
)
SETTINGS_UNSUPPORTED = (
    Unsupported(name="samples_format", neutral=("png", "PNG"), instead="pictures are sent as png"),
    Unsupported(name="eta_noise_seed_delta", neutral=(0,)),
    Unsupported(name="sd_hypernetwork", neutral=NOTHING),
    Unsupported(name="face_restoration", neutral=(False,)),
)


def check_all(rows: tuple[Unsupported, ...], values: Mapping[str, Any]) -> None:
    """Raises OptionsError for the first active field."""
    for row in rows:
        row.check(values)
