"""--list: the names that can be used, one a line; where to put a file of a kind that has none."""

from __future__ import annotations

from cli.streams import tell, warn
from modules.core.errors import printable
from modules.core.paths import KINDS, SINGULAR, ModelFolders
from modules.sampling.names import SAMPLERS, SCHEDULERS

TABLES = {"samplers": SAMPLERS, "schedulers": SCHEDULERS}
LISTS = (*KINDS, *TABLES)


def read_list(text: str) -> str:
    """The kind that is meant: lora, LoRAs and loras are one. What is no kind comes back as it is."""
    wanted = text.lower().replace("-", "_").removesuffix("s")
    aliases = {"model": "checkpoints", "autoencoder": "vae", "lyco": "loras", "textual_inversion": "embeddings"}
    return aliases.get(wanted) or next((kind for kind in LISTS if kind.removesuffix("s") == wanted), text)


def list_names(kind: str) -> None:
    """Prints the names, one a line whatever is in them, or says on standard error that there are none yet."""
    folders = ModelFolders()
    names = list(TABLES[kind]) if kind in TABLES else folders.list(kind)
    if names:
        tell("\n".join(map(printable, names)))
    else:
        warn(f"There is no {SINGULAR[kind]} yet: put one into {folders.folders(kind)[0]}.")
