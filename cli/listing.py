"""Prints the names for --list, one per line, or explains where to put a first file."""

from __future__ import annotations

from cli.streams import tell, warn
from cli.values import one_of
from modules.core.errors import printable
from modules.core.paths import KINDS, SINGULAR, ModelFolders
from modules.sampling.names import SAMPLERS, SCHEDULERS

TABLES = {"samplers": SAMPLERS, "schedulers": SCHEDULERS}
STYLES = "styles"
LISTS = (*KINDS, *TABLES, STYLES)


def read_list(text: str) -> str:
    """Normalises a kind: lora, LoRAs and loras are all the same. Raises ArgumentTypeError for an unknown kind."""
    wanted = text.lower().replace("-", "_").removesuffix("s")
    aliases = {"model": "checkpoints", "autoencoder": "vae", "lyco": "loras", "textual_inversion": "embeddings"}
    known = aliases.get(wanted) or next((kind for kind in LISTS if kind.removesuffix("s") == wanted), text)
    return one_of(LISTS)["type"](known)


def list_names(kind: str) -> None:
    """Prints the names, always one per line; if there are none yet, a message on standard error."""
    folders = ModelFolders()
    if kind in TABLES:
        names, advice = list(TABLES[kind]), ""
    else:
        names, advice = styles(folders) if kind == STYLES else files(folders, kind)
    if names:
        tell("\n".join(map(printable, names)))
    else:
        warn(advice)


def styles(folders: ModelFolders) -> tuple[list[str], str]:
    """Returns the names of the styles, and where to write a first one."""
    from modules.catalog.styles import read_styles, styles_file  # not needed by --help

    names = list(dict.fromkeys(style.name for style in read_styles(folders)))
    return names, f"There is no style yet: write one into {styles_file(folders)}."


def files(folders: ModelFolders, kind: str) -> tuple[list[str], str]:
    """Returns the names of a kind of model files, and where to put a first one."""
    return folders.list(kind), f"There is no {SINGULAR[kind]} yet: put one in {folders.folders(kind)[0]}."
