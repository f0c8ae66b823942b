"""The kinds of work the queue does: pictures, comparison, grid, giving memory back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.tasks.grid import Axis, grid_cells, paste_grid

if TYPE_CHECKING:
    from modules.generation.session import Session
    from modules.tasks.compare import Comparison
    from modules.tasks.queue import Work
    from modules.tasks.task import Ticket


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What the comparison leaves behind: both pictures on disk and what was measured."""

    comparison: Comparison
    eager: Path
    accelerated: Path


def make_pictures(options: GenerationOptions, output: OutputFolder) -> Work:
    """Pictures into the output folder, each on the ticket as soon as it is there."""

    def work(session: Session, ticket: Ticket) -> None:
        from modules.generation.text_to_image import generate

        output.check_writable()
        for picture in generate(options, session, on_progress=ticket.on_progress, cancel=ticket.cancel):
            ticket.note = stable_fast_status(options, session)
            ticket.add(output.save(picture), picture.request_seed)

    return work


def stable_fast_status(options: GenerationOptions, session: Session) -> str:
    """The line about Stable-Fast after a run; empty when it was not asked for."""
    report = session.stable_fast_report
    return report.status_line() if report is not None and options.stable_fast != "off" else ""


def make_comparison(options: GenerationOptions, output: OutputFolder) -> Work:
    """The first picture with and without Stable-Fast; `ticket.result` is a Compared."""

    def work(session: Session, ticket: Ticket) -> None:
        from modules.tasks.compare import compare

        output.check_writable()
        comparison = compare(options, session, on_progress=ticket.on_progress, cancel=ticket.cancel)
        pictures = [side.picture for side in (comparison.eager, comparison.accelerated)]
        eager, accelerated = (output.save(picture) for picture in pictures)
        ticket.result = Compared(comparison=comparison, eager=eager, accelerated=accelerated)
        ticket.note = stable_fast_status(replace(options, stable_fast=comparison.accelerated.asked), session)
        for path, picture in zip((eager, accelerated), pictures, strict=True):
            ticket.add(path, picture.request_seed)

    return work


def make_grid(options: GenerationOptions, across: Axis, down: Axis | None, output: OutputFolder) -> Work:
    """One picture for every pair of values, pasted into one labelled picture, which is the one that is saved."""

    def work(session: Session, ticket: Ticket) -> None:
        from modules.generation.text_to_image import generate

        output.check_writable()
        for cell in grid_cells(options, across, down):
            check_files(cell, session)
        cells = grid_cells(options.resolved(session.model(options).spec.native_size), across, down)
        pictures = []
        for number, cell in enumerate(cells, start=1):
            ticket.label = f"picture {number} of {len(cells)}"
            pictures += list(generate(cell, session, on_progress=ticket.on_progress, cancel=ticket.cancel))
            ticket.note = stable_fast_status(cell, session)
        sheet = paste_grid([picture.image for picture in pictures], across, down)
        ticket.add(output.save(replace(pictures[0], image=sheet)), pictures[0].request_seed)

    return work


def check_files(options: GenerationOptions, session: Session) -> None:
    """Raises ModelFileError for a checkpoint, VAE or LoRA that is not there."""
    from modules.generation.prompts import split_loras

    session.checkpoint_path(options.checkpoint)
    if options.vae:
        session.folders.find("vae", options.vae)
    for lora in (*options.loras, *split_loras(options.prompt)[1]):
        session.folders.find("loras", lora.name)


def free_memory(session: Session, ticket: Ticket) -> None:
    """Lets the loaded models go."""
    session.free()
