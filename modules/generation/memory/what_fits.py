"""Says in one line how a checkpoint fits into the free memory, for `--doctor`."""

from __future__ import annotations

from modules.core.device import choose_device, choose_dtype, free_memory
from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import checkpoint_path
from modules.loader.checkpoint import checkpoint_needs
from modules.loader.placement import Needs, leaving

GIB = 2**30


def what_fits(
    checkpoint: str | None, *, folders: ModelFolders, device_name: str | None = None, dtype_name: str | None = None
) -> str:
    """Describes the named checkpoint, or the default one, by its header.

    If the default one is missing or unreadable, the line says so. Raises ModelFileError if the named one is, and
    OptionsError for a bad device or type.
    """
    device = choose_device(device_name)
    dtype, free = choose_dtype(device, dtype_name), free_memory(device)
    try:
        path = checkpoint_path(folders, checkpoint)
        needs = checkpoint_needs(path, dtype)
    except ModelFileError as error:
        if checkpoint is not None:
            raise
        return f"{gib(free)} free; {error}"
    fits = f"{gib(free)} free on {device}; {path.name} needs {needs_text(needs)}"
    if device.type != "cuda":
        return f"{fits}; --memory has no effect on {device}"
    return f"{fits}; {choice_text(needs, free)}"


def needs_text(needs: Needs) -> str:
    networks = ", ".join(f"{name} {gib(size)}" for name, size in needs.networks.items())
    return f"{networks}, and {gib(needs.work)} to decode a picture of its native size at once"


def choice_text(needs: Needs, free: int) -> str:
    """Says what `--memory auto` chooses."""
    gone = leaving("auto", needs, free)
    if not gone:
        return "all stay on the GPU (--memory auto)"
    verb = "is" if len(gone) == 1 else "are"
    return f"{' and '.join(gone)} {verb} on the GPU only while at work (--memory auto)"


def gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
