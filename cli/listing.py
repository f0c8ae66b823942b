"""Prints the names for --list, one per line, or explains where to put a first file."""

from __future__ import annotations

from cli.streams import tell, warn
from modules.core.errors import printable
from modules.core.paths import KINDS, SINGULAR, ModelFolders
from modules.sampling.names import SAMPLERS, SCHEDULERS

TABLES = {"samplers": SAMPLERS, "schedulers": SCHEDULERS}
LISTS = (*KINDS, *TABLES)


def read_list(text: str) -> str:
    """Normalises a kind: lora, LoRAs and loras are all the same. Returns an unknown kind unchanged."""
    wanted = text.lower().replace("-", "_").removesuffix("s")
    aliases = {"model": "checkpoints", "autoencoder": "vae", "lyco": "loras", "textual_inversion": "embeddings"}
    return aliases.get(wanted) or next((kind for kind in LISTS if kind.removesuffix("s") == wanted), text)


def list_names(kind: str) -> None:
    """Prints the names, always one per line; if there are none yet, a message on standard error."""
    folders = ModelFolders()
    names = list(TABLES[kind]) if kind in TABLES else folders.list(kind)
    if names:
        tell("\n".join(map(printable, names)))
    else:
        warn(f"There is no {SINGULAR[kind]} yet: put one in {folders.folders(kind)[0]}.")
