"""Runs --upscale PATH: enlarges the pictures of a folder or one file, without a prompt, and skips those that exist."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from cli.console import ProgressBar, SessionRun, ending, stop_on_interrupt
from cli.requests import parse_size
from cli.streams import warn
from modules.core.errors import Cancelled, DeviceError, LightDiffusionError, OptionsError, OutputError, quoted
from modules.core.files import write_whole
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken

if TYPE_CHECKING:
    from modules.gallery.picture import Picture
    from modules.tasks.task import Enlarge

ALLOWED = ("upscale", "upscale_by", "upscale_to", "upscaler", "device", "output_dir", "json", "quiet")
STOPS_ALL = (Cancelled, DeviceError, OutputError)
FOLDER = "upscaled"  # in the output folder


@dataclass(frozen=True, kw_only=True)
class Work:
    """A picture to enlarge, and the file to write."""

    source: Path
    target: Path

    @property
    def is_done(self) -> bool:
        """Tells whether there is a result that is not older than the picture."""
        try:
            return self.target.stat().st_mtime >= self.source.stat().st_mtime
        except OSError:
            return False


def run_upscale(given: Mapping[str, Any]) -> dict[str, Any]:
    """Enlarges and saves the pictures; returns what --json prints. Raises OptionsError for a mistake in the options."""
    from modules.gallery.output import OutputFolder

    task = read_task(given)
    output = OutputFolder(given.get("output_dir"))
    works = list(works_of(given["upscale"], task, output.folder / FOLDER))
    cancel, bar = CancelToken(), ProgressBar(quiet=given.get("quiet", False))
    from tqdm.contrib.logging import logging_redirect_tqdm

    with stop_on_interrupt(cancel, bar), logging_redirect_tqdm():
        output.check_writable()
        from modules.generation.session import Session

        session = Session(ModelFolders(), device=given.get("device"))
        cancel.check()  # if Ctrl-C was pressed during the imports
        run = SessionRun(given=given, output=output, bar=bar, cancel=cancel, session=session)
        began = time.perf_counter()
        try:
            return run_works(works, task, run) | {"seconds": round(time.perf_counter() - began, 3)}
        finally:
            bar.close()


def read_task(given: Mapping[str, Any]) -> Enlarge:
    """Returns the task without its pictures."""
    from modules.tasks.task import Enlarge

    for name in given:
        if name not in ALLOWED:
            raise OptionsError(f"--{name.replace('_', '-')} has no meaning with --upscale: leave one of them out.")
    if "upscale_by" in given and "upscale_to" in given:
        raise OptionsError("--upscale-by and --upscale-to both set the size: leave out one of them.")
    width, height = parse_size(given["upscale_to"], "--upscale-to") if "upscale_to" in given else (None, None)
    scale, method = given.get("upscale_by", 2.0), given.get("upscaler", "lanczos")
    return Enlarge(images=(), scale=scale, width=width, height=height, method=method)


def works_of(path: Path, task: Enlarge, results: Path) -> Iterator[Work]:
    """Yields the pictures directly in a folder by name, or one file. The results' folder names them and the settings.

    Raises OptionsError if there are none.
    """
    from modules.generation.metadata.named_files import ENDINGS

    is_folder = path.is_dir()
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in ENDINGS) if is_folder else [path]
    if not found:
        raise OptionsError(f"The folder {quoted(path)} holds no pictures: name another one.")
    if not is_folder and not path.exists():
        raise OptionsError(f"{quoted(path)} does not exist; name a picture, or a folder with pictures.")
    origin = (path if is_folder else path.parent).resolve().name or "pictures"
    size = f"{task.scale:g}x" if task.width is None else f"{task.width}x{task.height}"
    folder = results / f"{origin}-{size}-{PurePath(task.method).stem}"
    stems = Counter(each.stem for each in found)
    for each in found:
        yield Work(source=each, target=folder / f"{each.stem if stems[each.stem] == 1 else each.name}.png")


def run_works(works: Sequence[Work], task: Enlarge, run: SessionRun) -> dict[str, Any]:
    """Enlarges the pictures one by one; tells at the end which could not be, each in a sentence."""
    images: list[dict[str, Any]] = []
    failed: list[tuple[Work, LightDiffusionError]] = []
    for number, (work, made) in enumerate(enlarged(works, task, run), start=1):
        if isinstance(made, LightDiffusionError):
            failed.append((work, made))
        else:
            images.append({"path": str(work.target), "source": str(work.source), "status": made})
        tell_progress(run, number, len(works))
    run.bar.close()
    answer: dict[str, Any] = {"images": images}
    if failed:
        for _, error in failed:
            warn(f"error: {error}")
        answer["failed"] = [{"source": str(work.source), "error": str(error)} for work, error in failed]
        answer |= {"error": ending(failed[-1][1], len(images)), "exit_code": failed[0][1].exit_code}
    return answer


def enlarged(works: Sequence[Work], task: Enlarge, run: SessionRun) -> Iterator[tuple[Work, str | LightDiffusionError]]:
    """Yields how each picture ended: "done", "skipped" or an error. Some errors end the whole run."""
    from modules.core.device import made_current
    from modules.generation.text_to_image import device_errors_for_people
    from modules.tasks.picture_work import enlarge, upscaler_for

    def on_tile(done: int, tiles: int) -> None:
        run.cancel.check()

    with made_current(run.session.device):
        upscaler = upscaler_for(task, run.session)
        for work in works:
            try:
                run.cancel.check()
                if work.is_done:
                    run.say(f"{work.source.name}: already done, {work.target}")
                    yield work, "skipped"
                    continue
                with device_errors_for_people(run.session):
                    save(enlarge(work.source, task, upscaler, on_tile), work.target)
            except LightDiffusionError as error:
                yield work, error
                if isinstance(error, STOPS_ALL):
                    return
            else:
                run.say_path(work.target)
                yield work, "done"


def save(picture: Picture, path: Path) -> None:
    """Writes the picture. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, picture.encoded().png)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); free some space or use --output-dir."
        ) from error


def tell_progress(run: SessionRun, done: int, pictures: int) -> None:
    from modules.generation.progress import Progress

    run.bar(Progress(phase="enlarging", batch=1, batches=1, step=done, steps=pictures))
