"""Workers that are killed, cancelled and given wrong tasks: every picture comes, once, and always the same one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from modules.cluster.dispatcher import Seat
from modules.cluster.pool import WorkerPool
from modules.cluster.travel import packed
from modules.core.errors import Cancelled, ModelFileError
from modules.core.progress import CancelToken
from modules.gallery.picture import EncodedPicture, Picture
from modules.generation.options import GenerationOptions, InitImage
from modules.generation.progress import Progress
from modules.generation.text_to_image import generate
from modules.images.save import encode_png
from modules.tasks.kinds import MadePicture
from modules.tasks.task import MakePictures
from tests import tiny_project

SMALL = GenerationOptions(prompt="a cat", width=64, height=64, steps=2, seed=7)


def png(made: MadePicture) -> bytes:
    assert isinstance(made.picture, EncodedPicture)
    return made.picture.png


def pictures(pool: WorkerPool, options: GenerationOptions, cancel: CancelToken | None = None) -> list[bytes]:
    return [png(made) for made in pool.run(MakePictures(options=options), None, cancel or CancelToken())]


def local(models: Path, options: GenerationOptions) -> list[bytes]:
    """The same pictures made in this process."""
    made: Iterator[Picture] = generate(options, tiny_project.session_at(models))
    return [encode_png(picture.image, picture.parameters) for picture in made]


def kill(seat: Seat) -> None:
    _, number = ray.get(seat.worker.place.remote())
    os.kill(number, signal.SIGKILL)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.005)


def test_a_picture_is_the_same_as_in_this_process(pool: WorkerPool, models: Path, tmp_path: Path) -> None:
    photo = tiny_project.save_photo(tmp_path / "photo.png")
    options = replace(SMALL, batch=2, init=InitImage(image=photo, denoise=0.6), prompt="a cat <lora:ink:0.5>")
    assert pictures(pool, options) == local(models, options)


@pytest.mark.slow
def test_forty_requests_survive_three_kills(pool: WorkerPool, capfd: pytest.CaptureFixture[str]) -> None:
    requests = [replace(SMALL, seed=seed, steps=3) for seed in range(40)]
    finished: list[int] = []

    def make(options: GenerationOptions) -> list[bytes]:
        made = pictures(pool, options)
        finished.append(options.seed or 0)
        return made

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(make, options) for options in requests]
        for count, victim in ((4, 0), (12, 1), (20, 0)):
            seat = pool.seats[victim]
            wait_until(lambda count=count, seat=seat: len(finished) >= count and seat.up and seat.busy)
            kill(seat)
        disturbed = [future.result() for future in futures]
    assert sorted(finished) == list(range(40)) and all(len(made) == 1 for made in disturbed)
    with ThreadPoolExecutor(8) as threads:
        undisturbed = list(threads.map(lambda options: pictures(pool, options), requests))
    assert disturbed == undisturbed and len(set(map(tuple, disturbed))) == 40
    assert capfd.readouterr().out == "", "standard output is for paths only"


def test_pictures_of_a_batch_that_have_come_are_not_sent_again(pool: WorkerPool) -> None:
    options = replace(SMALL, batch=3, number=2, steps=5)
    whole = pictures(pool, options)
    task = pool.run(MakePictures(options=options), None, CancelToken())
    first = [png(next(task)) for _ in range(2)]
    kill(next(seat for seat in pool.seats if seat.busy))
    assert [*first, *(png(made) for made in task)] == whole


def test_cancel_frees_the_worker_within_a_step(pool: WorkerPool) -> None:
    cancel, steps = CancelToken(), list[int]()

    def tell(event: Progress) -> None:
        steps.append(event.step)
        if event.step > 0:
            cancel.cancel()

    with pytest.raises(Cancelled):
        list(pool.run(MakePictures(options=replace(SMALL, steps=150)), tell, cancel))
    assert steps[-1] < 150 and not any(seat.busy for seat in pool.seats)
    assert len(pictures(pool, SMALL)) == 1


def test_an_abandoned_task_is_cancelled(pool: WorkerPool) -> None:
    began = time.monotonic()
    task = pool.run(MakePictures(options=replace(SMALL, number=40, steps=10)), None, CancelToken())
    next(task)
    two_pictures = time.monotonic() - began
    seat = next(seat for seat in pool.seats if seat.busy)
    task.close()  # type: ignore[attr-defined]  # it is a generator
    assert not seat.busy
    began = time.monotonic()
    order = packed(MakePictures(options=SMALL), pool.folders, None)
    assert len([ray.get(message) for message in seat.worker.work.options(num_returns="streaming").remote(order)]) == 2
    assert time.monotonic() - began < two_pictures * 10 + 2, "the other 38 would take 19 times as long"


def test_a_wrong_task_is_a_sentence_and_no_worker_dies(pool: WorkerPool, models: Path) -> None:
    bad = models / "models" / "checkpoints" / "damaged.safetensors"
    bad.write_bytes(b"no model")
    numbers = [ray.get(seat.worker.place.remote()) for seat in pool.seats]
    for name in ("missing", "damaged"):
        with pytest.raises(ModelFileError, match=name) as error:
            pictures(pool, replace(SMALL, checkpoint=name))
        assert "\n" not in str(error.value) and "Traceback" not in str(error.value)
    bad.unlink()
    assert [ray.get(seat.worker.place.remote()) for seat in pool.seats] == numbers
