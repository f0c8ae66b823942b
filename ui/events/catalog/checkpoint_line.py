"""Says below the checkpoint list what the chosen checkpoint is, from its header."""

from __future__ import annotations

from modules.catalog.model_facts import ModelFacts, model_facts
from modules.catalog.models import checkpoint_facts
from modules.core.errors import LightDiffusionError
from modules.core.families import CONTEXT_FAMILIES
from modules.core.paths import ModelFolders
from modules.generation.few_steps.offers import find_offer
from ui.events.handlers import Update
from ui.events.opening import Opening
from ui.events.wiring import Wiring
from ui.panels.render import status_line

REFINER = CONTEXT_FAMILIES[1280]


def connect_checkpoint_line(wiring: Wiring, folders: ModelFolders, opening: Opening) -> None:
    def answer(name: str | None) -> Update:
        return {"checkpoint_line": status_line(checkpoint_line(folders, name))}

    opening.add(lambda values: answer(values["checkpoint"]), ("checkpoint_line",))
    wiring.on(wiring.apart(("checkpoint",)), answer, ("checkpoint",), ("checkpoint_line",), queue=False)


def checkpoint_line(folders: ModelFolders, name: str | None) -> str:
    """Returns family, native size and what was detected; nothing for a missing file, which Generate reports."""
    try:
        facts = model_facts(folders.find("checkpoints", name), "checkpoints") if name else None
        offer = find_offer(folders, name, ())
    except LightDiffusionError:
        return ""
    if facts is None:
        return ""
    few = (f"few-step ({offer.preset.label})",) if offer else ()
    size = f"native size {checkpoint_facts(folders, name).native_size}"
    return " · ".join((family_words(facts), size, *facts.details, *few))


def family_words(facts: ModelFacts) -> str:
    if not facts.family:
        return "The header does not tell the family"
    if facts.family == REFINER:
        return "The SDXL refiner: choose it under Refiner, with an SDXL checkpoint here"
    if facts.family not in CONTEXT_FAMILIES.values():
        return f"{facts.family}, which cannot be used here"
    small = facts.width is not None and CONTEXT_FAMILIES.get(facts.width) != facts.family
    return f"A small {facts.family}" if small else facts.family
