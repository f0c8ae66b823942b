"""A1111's progress and interrupt."""

from __future__ import annotations

import base64
import io
import threading
import time
from typing import Any

import pytest
from PIL import Image

from api.a1111.progress import ENCODED, LOADING, share_of
from modules.generation.options import GenerationOptions, HiresOptions
from modules.generation.progress import Progress
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import MakePictures
from tests.api.conftest import SMALL, Served
from tests.held_task import HoldTheQueue


def wait_until(holds: Any) -> None:
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


def test_an_interrupted_request_has_the_pictures_there_are(webui: Any) -> None:
    results: list[Any] = []
    asked = {**SMALL, "steps": 40, "n_iter": 200}
    client = threading.Thread(target=lambda: results.append(webui.txt2img(**asked)))
    client.start()
    wait_until(lambda: webui.get_progress()["state"]["job_no"] >= 1)
    progress = webui.get_progress()
    assert ENCODED < progress["progress"] < 1 and progress["eta_relative"] > 0
    assert progress["state"]["job_count"] == 200 and progress["state"]["sampling_steps"] == 40
    assert Image.open(io.BytesIO(base64.b64decode(progress["current_image"]))).size == (8, 8)
    without = webui.session.get(f"{webui.baseurl}/progress?skip_current_image=true").json()
    assert without["current_image"] is None
    assert webui.interrupt() == {}
    client.join(60)
    (result,) = results
    assert 1 <= len(result.images) < 200 and len(result.info["all_seeds"]) == len(result.images)
    idle = webui.get_progress()
    assert idle["progress"] == 0 and idle["state"]["job_count"] == 0


def test_a_skipped_batch_is_not_among_the_pictures(webui: Any) -> None:
    results: list[Any] = []
    client = threading.Thread(target=lambda: results.append(webui.txt2img(**{**SMALL, "steps": 60, "n_iter": 3})))
    client.start()
    wait_until(lambda: webui.get_progress()["state"]["job_no"] == 1)
    assert webui.skip() == {}
    client.join(60)
    seed = results[0].info["seed"]
    assert results[0].info["all_seeds"] == [seed, seed + 2] and len(results[0].images) == 2


def test_a_waiting_request_can_be_interrupted(webui: Any, served: Served) -> None:
    release = threading.Event()
    held = served.desk.queue.submit(HoldTheQueue(until=release))  # type: ignore[arg-type]
    results: list[Any] = []
    client = threading.Thread(target=lambda: results.append(webui.txt2img(**SMALL)))
    client.start()
    wait_until(lambda: served.desk.current is not None)
    progress = webui.get_progress()
    assert progress["progress"] == 0 and progress["textinfo"] == "Waiting for 1 others"
    assert webui.skip() == {}, "nothing runs that could be skipped"
    webui.interrupt()
    client.join(60)
    release.set()
    assert held.wait(60) and results[0].images == []


def test_a_client_that_hangs_up_frees_the_queue(webui: Any, served: Served) -> None:
    with pytest.raises(Exception, match="(?i)timed out"):
        webui.session.post(f"{webui.baseurl}/txt2img", json={**SMALL, "steps": 900, "n_iter": 90}, timeout=0.5)
    wait_until(lambda: served.desk.current is None)


def test_the_share_never_goes_back() -> None:
    queued = QueuedTask(task=MakePictures(options=GenerationOptions(prompt="", number=2, hires=HiresOptions())))
    shares = [share_of(queued)]
    queued.begin()
    shares.append(share_of(queued))
    for batch in (1, 2):
        for phase, steps in (("sampling", 4), ("hires", 3), ("decoding", 1)):
            for step in range(steps + 1):
                event = Progress(phase=phase, batch=batch, batches=2, step=step, steps=steps)
                queued.on_progress(event)
                shares.append(share_of(queued))
    assert shares[:2] == [0, LOADING] and shares == sorted(shares) and shares[-1] == pytest.approx(1)
