"""Runs --prompts FILE on the workers of a cluster (--cluster): each batch goes to one of them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cli.console import RunContext
from cli.runs.prompt_batch import CheckedLine, Outcome
from cli.streams import warn
from modules.core.errors import LightDiffusionError, OptionsError, quoted
from modules.core.paths import ModelFolders
from modules.generation.progress import Progress

if TYPE_CHECKING:
    from modules.cluster.pool import WorkerPool
    from modules.gallery.picture import EncodedPicture, Picture
    from modules.generation.options import GenerationOptions
    from modules.tasks.prompt_record import Batch, PromptRecord, SavedPicture

INSTALL = ".venv/bin/pip install -r requirements-cluster.txt"
MOST_WORKERS = 1024
WAITING = 4  # batches that wait for each worker, to choose from by checkpoint


def check_cluster(given: Mapping[str, Any]) -> None:
    """Raises OptionsError for options that do not fit together, or if Ray is not installed."""
    if "cluster" not in given:
        if "workers" in given:
            raise OptionsError("--workers is the number of a cluster's workers: give --cluster local too.")
        return
    workers, device = given.get("workers"), given.get("device")
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise OptionsError(f"--workers {workers}: give a number from 1 to {MOST_WORKERS}.")
    if device not in (None, "cpu", "cuda"):
        raise OptionsError(
            f"--device {quoted(device)}: with --cluster Ray chooses each worker's GPU; give cuda or cpu."
        )
    if given.get("most_together") or given.get("gather_ms"):
        raise OptionsError("--most-together and --gather-ms are about one session: remove them, or --cluster.")
    if given.get("stable_fast_table"):
        raise OptionsError("--stable-fast-table is about one GPU, and --cluster may have several kinds: remove one.")
    if find_spec("ray") is None:
        raise OptionsError(f"--cluster needs Ray, which is not installed: {INSTALL}")


def check_prompts_only(given: Mapping[str, Any]) -> None:
    """Raises OptionsError for what --cluster cannot do on the command line."""
    if "cluster" not in given:
        return
    if "prompts" not in given:
        raise OptionsError("--cluster shares the lines of a file among workers: give --prompts FILE.")
    if "stable_fast_report" in given:
        raise OptionsError("--stable-fast-report is about one session, and --cluster has several: remove one of them.")


@contextmanager
def opened_pool(given: Mapping[str, Any], folders: ModelFolders) -> Generator[WorkerPool]:
    """Opens the pool that the arguments ask for. Raises OptionsError if no cluster answers."""
    from modules.cluster.environment import prepare_import

    prepare_import()
    from modules.cluster.connect import open_pool
    from modules.cluster.messages import WorkerSettings

    settings = WorkerSettings(
        root=folders.root.resolve(),
        names_only=folders.names_only,
        device=given.get("device"),
        dtype=given.get("dtype"),
        tuning_seconds=given.get("stable_fast_tune") or 0.0,
        memory=given.get("memory"),
    )
    with open_pool(given["cluster"], given.get("workers"), settings, folders) as pool:
        yield pool


def run_on_cluster(lines: Sequence[CheckedLine], folders: ModelFolders, run: RunContext) -> dict[str, Any]:
    """Makes the pictures of valid lines; returns the same as `run_prompts`. Only this process writes."""
    from modules.tasks.prompt_record import PromptRecord

    with opened_pool(run.given, folders) as pool:
        run.cancel.check()  # if Ctrl-C was pressed while Ray started
        began = time.perf_counter()
        shared = SharedPrompts(record=PromptRecord(run.output), pool=pool, run=run)
        result = shared.make(lines)
        result["seconds"] = round(time.perf_counter() - began, 3)
    if shared.note:
        warn(shared.note)
        result["stable_fast"] = {"status": shared.note}
    return result


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """The pictures of a batch that are saved, and the error that ended it."""

    line: CheckedLine
    saved: list[SavedPicture]
    error: LightDiffusionError | None = None


@dataclass(kw_only=True)
class SharedPrompts:
    """The lines of a file that several workers make. `note` is the latest about Stable-Fast."""

    record: PromptRecord
    pool: WorkerPool
    run: RunContext
    note: str = ""
    _left: dict[int, int] = field(default_factory=dict)  # batches of each line that are not finished

    def make(self, lines: Sequence[CheckedLine]) -> dict[str, Any]:
        """Makes all lines, and tells each picture when its batch is finished."""
        plan = list(self._planned(lines))
        outcome, total, made = Outcome(self.run), sum(len(batch.numbers) for _, batch in plan), 0
        self._tell(0, total)
        with self._threads() as threads:
            futures = [threads.submit(self._complete, line, batch) for line, batch in plan]
            for future in as_completed(futures):
                result = future.result()
                self._record(result, outcome)
                made += len(result.saved)
                if not outcome.stopped:
                    self._tell(made, total)
        return outcome.result()

    def _planned(self, lines: Sequence[CheckedLine]) -> Iterator[tuple[CheckedLine, Batch]]:
        """Yields each batch with its line. Seeds are decided here, so that no worker's end changes a picture."""
        for line in lines:
            for request in line.requests:
                for batch in self.record.batches(request.options, self.pool.folders):
                    self._left[line.number] = self._left.get(line.number, 0) + 1
                    yield line, batch

    @contextmanager
    def _threads(self) -> Generator[ThreadPoolExecutor]:
        """Opens threads that wait for workers; an error in the block stops all of them."""
        threads = ThreadPoolExecutor(self.pool.size * WAITING, thread_name_prefix="batch")
        try:
            yield threads
        except BaseException:
            self.run.cancel.cancel()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _complete(self, line: CheckedLine, batch: Batch) -> BatchResult:
        saved: list[SavedPicture] = []
        try:
            self.run.cancel.check()
            saved.extend(self.record.complete(batch, self._pictures))
        except LightDiffusionError as error:
            return BatchResult(line=line, saved=saved, error=error)
        return BatchResult(line=line, saved=saved)

    def _pictures(self, options: GenerationOptions) -> Iterator[Picture | EncodedPicture]:
        from modules.tasks.task import MakePictures

        for made in self.pool.run(MakePictures(options=options), None, self.run.cancel):
            self.note = made.note or self.note
            yield made.picture.fetched()

    def _record(self, result: BatchResult, outcome: Outcome) -> None:
        line = result.line
        for saved in result.saved:
            outcome.add(line, saved)
        if result.error is not None and not outcome.stopped:
            outcome.fail(line, result.error)
            if outcome.stopped:
                self.run.cancel.cancel()
        self._left[line.number] -= 1
        if not self._left[line.number] and not outcome.stopped:
            outcome.finish(line)

    def _tell(self, made: int, total: int) -> None:
        self.run.bar(Progress(phase="pictures", batch=1, batches=1, step=made, steps=total))
