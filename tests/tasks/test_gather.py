"""Who is made together, and whole queues of requests that are: on a tiny checkpoint, against pictures made alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken
from modules.gallery.output import OutputFolder
from modules.generation import text_to_image
from modules.generation.job import Job
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.generation.passes.batch import Batch
from modules.generation.progress import OnProgress, Progress
from modules.generation.text_to_image import generate
from modules.images.in_flight import PixelsInFlight
from modules.images.save import read_parameters
from modules.tasks import queued_task
from modules.tasks.gather import joining
from modules.tasks.kinds import MadePicture, run_task
from modules.tasks.queue import TaskQueue
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import Compare, FreeMemory, MakePictures, Task
from tests import tiny_project


def request(prompt: str = "a cat", **changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seed": 5, "cfg": 3.0}
    return GenerationOptions(prompt=prompt, **values | changes)


def make(*args: Any, **changes: Any) -> MakePictures:
    return MakePictures(options=request(*args, **changes))


NOWHERE = ModelFolders(Path("/nowhere"))
INK = LoraChoice(name="ink", strength=0.8)
START = InitImage(image=Path("a.png"))
EDGES = ControlChoice(name="edges", image=Path("a.png"))


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ({}, {}, True),
        ({}, {"prompt": "a dog", "negative_prompt": "rain", "seed": None}, True),
        ({}, {"steps": 3}, False),
        ({}, {"width": 128}, False),
        ({}, {"sampler": "euler"}, False),
        ({}, {"stable_fast": "full"}, False),
        ({}, {"checkpoint": "other"}, False),
        ({"loras": (INK,)}, {"prompt": "a <lora:ink:0.8> dog"}, True),
        ({"loras": (INK,)}, {"prompt": "a <lora:ink:0.7> dog"}, False),
        ({}, {"prompt": "a <lora:ink:0.8> dog"}, False),
        ({}, {"prompt": "a <lora:ink:99> dog"}, False),
        ({"init": START}, {"init": InitImage(image=Path("a.png"))}, True),
        ({"init": START}, {"init": InitImage(image=Path("b.png"))}, False),
        ({"controls": (EDGES,)}, {"controls": (EDGES,)}, True),
        ({"controls": (EDGES,)}, {"controls": (replace(EDGES, end=0.5),)}, False),
        ({"only": 0}, {"only": 0}, False),
        ({"sampler": "DPM adaptive"}, {"sampler": "DPM adaptive"}, False),
        ({"sampler": "no such"}, {"sampler": "no such"}, False),
        ({"hires": HiresOptions()}, {"hires": HiresOptions()}, True),
    ],
)
def test_requests_join_that_agree_in_all_but_prompts_seed_and_number(
    first: dict[str, Any], other: dict[str, Any], expected: bool
) -> None:
    assert joining(make(**first), [make(**other)], 8, NOWHERE) == ([0] if expected else [])


def test_styles_join_if_they_name_the_same_loras_and_no_variants(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text(
        "name,prompt,negative_prompt\nlight,soft light,\nink,{prompt} <lora:ink:0.8>,blurry\nmixed,a {red|blue} hat,\n"
    )
    folders = ModelFolders(tmp_path)

    def join(first: MakePictures, other: MakePictures) -> bool:
        return joining(first, [other], 8, folders) == [0]

    light, ink, mixed, unknown = (make(styles=(name,)) for name in ("light", "ink", "mixed", "none-such"))
    assert join(light, make("a dog")) and join(make(), light) and join(ink, make(loras=(INK,)))
    assert not join(light, ink) and not join(mixed, mixed) and not join(make(), unknown)


def test_other_kinds_of_tasks_never_join() -> None:
    waiting: list[Task] = [Compare(options=request()), FreeMemory(), make()]
    assert joining(make(), waiting, 8, NOWHERE) == [2]
    assert joining(Compare(options=request()), [make()], 8, NOWHERE) == []
    assert joining(FreeMemory(), [FreeMemory()], 8, NOWHERE) == []


def test_the_first_to_arrive_join_up_to_a_usual_size() -> None:
    waiting = [make(steps=steps) for steps in (2, 3, 2, 2, 3, 2, 2, 2, 2, 2)]
    assert joining(make(), waiting, 8, NOWHERE) == [0, 2, 3, 5, 6, 7, 8]
    assert joining(make(), waiting[:6], 8, NOWHERE) == [0, 2, 3]
    assert joining(make(), waiting, 7, NOWHERE) == [0, 2, 3]
    assert joining(make(), waiting, 1, NOWHERE) == []
    assert joining(make(number=3), [make(number=2), make(number=3), make()], 8, NOWHERE) == [0, 1]
    assert joining(make(number=3), [make()], 8, NOWHERE) == [0]
    assert joining(make(batch=3), [make(batch=3)] * 5, 8, NOWHERE) == [0]


@dataclass(frozen=True)
class HoldTheQueue:
    """A kind of task that lasts until it is told to end."""

    until: threading.Event


@run_task.register
def hold(task: HoldTheQueue, session: Any, on_progress: Any, cancel: CancelToken) -> Iterator[MadePicture]:
    task.until.wait(60)
    yield from ()


class Held:
    """A queue that is held until all requests are in it; counts the pictures of each batch that is sampled."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.session = tiny_project.session_at(root)
        self.batches: list[list[int]] = []
        self.before_sampling: Callable[[Batch], None] = lambda batch: None
        self.original = text_to_image.sample_pass
        monkeypatch.setattr(text_to_image, "sample_pass", self._counted)
        self.queue = TaskQueue(lambda: self.session, OutputFolder(root / "output"), **{"most_together": 8} | settings)
        self.release = threading.Event()

    def _counted(self, batch: Batch, *rest: Any) -> Tensor:
        self.batches.append(batch.seeds)
        self.before_sampling(batch)
        return self.original(batch, *rest)

    def submit(self, seeds: Iterable[int]) -> list[QueuedTask]:
        return [self.queue.submit(MakePictures(options=request(seed=seed))) for seed in seeds]

    def run(
        self, requests: list[GenerationOptions], meanwhile: Callable[[list[QueuedTask]], object] = len
    ) -> list[QueuedTask]:
        self.queue.submit(HoldTheQueue(until=self.release))  # type: ignore[arg-type]
        tasks = [self.queue.submit(MakePictures(options=each)) for each in requests]
        meanwhile(tasks)
        self.release.set()
        assert all(queued.wait(120) for queued in tasks)
        return tasks

    def assert_as_alone(self, queued: QueuedTask, options: GenerationOptions) -> None:
        alone = list(generate(options, self.session))
        assert (queued.state, len(queued.pictures), queued.seed) == ("done", len(alone), options.seed)
        for path, picture in zip(queued.pictures, alone, strict=True):
            assert read_parameters(path) == picture.parameters
            with Image.open(path) as image:
                assert np.abs(np.asarray(image, dtype=float) - np.asarray(picture.image, dtype=float)).max() <= 1


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(tiny_project.project(tmp_path), monkeypatch)
    yield held
    held.queue.close()


def test_24_requests_of_three_kinds_are_three_batches(held: Held) -> None:
    kinds: list[dict[str, Any]] = [{}, {"steps": 1}, {"loras": (INK,)}]
    requests = [request(f"picture {number}", seed=number, cfg=1.0, **kinds[number % 3]) for number in range(24)]
    requests[5] = replace(requests[5], prompt="picture 5 <lora:ink:0.8>", loras=(), steps=2)
    tasks = held.run(requests)
    assert held.batches == [list(range(kind, 24, 3)) for kind in range(3)]
    in_order = sorted(range(24), key=lambda place: tasks[place].ended or 0.0)
    assert in_order == [place for kind in range(3) for place in range(kind, 24, 3)]
    for queued, options in zip(tasks, requests, strict=True):
        held.assert_as_alone(queued, options)


def test_a_cancelled_member_ends_at_once_and_the_others_go_on(held: Held) -> None:
    requests = [request(f"picture {seed}", seed=seed) for seed in range(4)]
    ended: list[bool] = []

    def cancel_two(batch: Batch) -> None:
        if len(batch.seeds) == 4:
            for queued in (tasks[0], tasks[2]):  # the first leads the batch
                assert held.queue.cancel(queued.id)
                ended.append(queued.wait(10))

    tasks: list[QueuedTask] = []
    held.before_sampling = cancel_two
    held.run(requests, tasks.extend)
    assert ended == [True, True] and held.batches == [[0, 1, 2, 3]]
    assert [queued.state for queued in tasks] == ["cancelled", "done", "cancelled", "done"]
    assert tasks[0].pictures == tasks[2].pictures == []
    for place in (1, 3):
        held.assert_as_alone(tasks[place], requests[place])


def test_a_bad_request_fails_alone(held: Held) -> None:
    requests = [request(f"picture {seed}", seed=seed) for seed in range(4)]
    requests[2] = replace(requests[2], prompt="a cat, embedding:none-such")
    tasks = held.run(requests)
    assert [queued.state for queued in tasks] == ["done", "done", "failed", "done"]
    assert "none-such" in tasks[2].error and held.batches == [[0, 1], [3]]
    for place in (0, 1, 3):
        held.assert_as_alone(tasks[place], requests[place])


def test_after_a_failure_of_the_batch_each_runs_by_itself_once(held: Held) -> None:
    """Memory runs out while sampling; the next batch has half as many pictures."""
    failed: list[int] = []

    def fail_in_batches(batch: Batch) -> None:
        if len(batch.seeds) > 2:
            failed.append(len(batch.seeds))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    held.before_sampling = fail_in_batches
    requests = [request(f"picture {seed}", seed=seed) for seed in range(4)]
    tasks = held.run(requests)
    assert failed == [4] and held.batches == [[0, 1, 2, 3], [0], [1], [2], [3]]
    for queued, options in zip(tasks, requests, strict=True):
        held.assert_as_alone(queued, options)
    held.release.clear()
    held.batches.clear()
    held.run(requests)
    assert held.batches == [[0, 1], [2, 3]]


def test_what_a_failed_batch_has_made_is_not_made_again(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch fails at its second picture. Its request has no seed of its own, and still gets two in a row."""
    decoded: list[Any] = []
    original = Job.decode_soon

    def fail_once(job: Job, latent: Tensor) -> Any:
        decoded.append(latent)
        if len(decoded) == 2:
            raise RuntimeError("a kernel failed")
        return original(job, latent)

    monkeypatch.setattr(Job, "decode_soon", fail_once)
    requests = [request(seed=None, number=2), request("a dog", seed=8), request("a hen", seed=9)]
    tasks = held.run(requests)
    assert [len(queued.pictures) for queued in tasks] == [2, 1, 1] and [len(seeds) for seeds in held.batches][0] == 4
    seed = tasks[0].seed
    assert seed is not None
    for queued, options in zip(tasks, [replace(requests[0], seed=seed), *requests[1:]], strict=True):
        held.assert_as_alone(queued, options)


def test_each_task_sees_its_own_progress(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_task, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr(queued_task, "PREVIEW_SHARE", 1e9)
    seen: list[set[str]] = [set(), set()]
    shown: list[set[bytes]] = [set(), set()]

    def watch(tasks: list[QueuedTask]) -> None:
        for queued, phases, previews in zip(tasks, seen, shown, strict=True):
            monkeypatch.setattr(queued, "on_progress", partial(look, queued, queued.on_progress, phases, previews))

    def look(queued: QueuedTask, told: OnProgress, phases: set[str], previews: set[bytes], event: Progress) -> None:
        told(event)
        phases.add(f"{event.phase} {event.step}")
        previews.add(queued.preview)

    held.run([request(f"picture {seed}", seed=seed) for seed in range(2)], watch)
    assert seen == [{f"sampling {step}" for step in range(3)} | {"decoding 0", "decoding 1"}] * 2
    assert len(shown[0] | shown[1]) > 2 and (shown[0] & shown[1]) == {b""}


def test_a_request_waits_for_others_as_long_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(tiny_project.project(tmp_path), monkeypatch, most_together=2, gather_ms=60_000)
    first = held.queue.submit(make(seed=1))
    second = held.queue.submit(make(seed=2))
    assert first.wait(60) and second.wait(60) and held.batches == [[1, 2]]
    lonely = held.queue.submit(make(seed=3))
    while lonely.started is None:
        threading.Event().wait(0.005)
    held.queue.close()
    assert lonely.wait(10) and lonely.state == "cancelled" and held.batches == [[1, 2]]


def test_a_processor_makes_one_after_the_other_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(tiny_project.project(tmp_path), monkeypatch, most_together=None)
    held.run([request(seed=seed) for seed in (1, 2)])
    assert held.batches == [[1], [2]]
    held.queue.close()


def test_a_request_with_an_unusable_picture_runs_by_itself_and_the_others_keep_theirs(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of four pictures is NaN, which shows only when it is fetched. No picture is saved twice."""
    decoded: list[Any] = []
    original = Job.decode_soon

    def nan_once(job: Job, latent: Tensor) -> Any:
        decoded.append(latent)
        return original(job, latent * float("nan") if len(decoded) == 2 else latent)

    monkeypatch.setattr(Job, "decode_soon", nan_once)
    requests = [request(seed=5, number=3), request("a dog", seed=9)]
    tasks = held.run(requests)
    assert held.batches == [[5, 6, 7, 9], [5], [6], [7]]
    for queued, options in zip(tasks, requests, strict=True):
        held.assert_as_alone(queued, options)
    assert len(list((held.session.folders.root / "output").rglob("*.png"))) == 4


def test_while_the_gpu_finishes_pictures_requests_wait_for_others_but_a_full_batch_does_not(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, original = threading.Event(), PixelsInFlight.wait

    def slow(pixels: PixelsInFlight) -> Any:
        arrived.wait(60)
        return original(pixels)

    monkeypatch.setattr(PixelsInFlight, "wait", slow)
    begun = threading.Semaphore(0)
    held.before_sampling = lambda batch: begun.release()
    held.queue.submit(HoldTheQueue(until=held.release))  # type: ignore[arg-type]
    tasks = held.submit(range(2))
    held.release.set()
    assert begun.acquire(timeout=60)
    tasks += held.submit(range(10, 18))
    assert begun.acquire(timeout=60)
    for seed in range(20, 24):
        tasks += held.submit([seed])
    assert not begun.acquire(timeout=0.1) and not any(queued.finished for queued in tasks)
    arrived.set()
    assert all(queued.wait(60) for queued in tasks)
    assert held.batches == [[0, 1], list(range(10, 18)), [20, 21, 22, 23]]
