"""The offered download: one at a time, in the background, and no partial file after a stop or a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modules.catalog.starter import STARTER, StarterDownload
from modules.core.paths import ModelFolders
from tests.hub import Remote, serving


@pytest.fixture
def remote() -> Iterator[Remote]:
    with serving(bytes(range(256)) * 400) as remote:
        yield remote


@pytest.fixture
def starter(model_root: Path, remote: Remote) -> StarterDownload:
    return StarterDownload(ModelFolders(model_root), replace(STARTER, url=f"{remote.url}/resolve"))


def test_asked_then_fetched_into_the_checkpoints(starter: StarterDownload, remote: Remote) -> None:
    assert starter.latest is None and remote.requests == []
    offer = starter.ask()
    assert offer.size == len(remote.data) and not starter.target.exists()
    download = starter.begin(offer)
    assert download.wait(10) and (download.state, download.error, download.received) == ("done", "", offer.size)
    assert starter.target.read_bytes() == remote.data and starter.target.name == STARTER.name


def test_one_at_a_time_and_stopped_when_told(starter: StarterDownload, remote: Remote) -> None:
    remote.pause = 0.05
    download = starter.begin(starter.ask())
    assert starter.begin(download.offer) is download
    download.cancel.cancel()
    assert download.wait(10) and (download.state, download.error) == ("cancelled", "")
    assert not starter.target.exists()
    remote.pause = 0.0
    again = starter.begin(download.offer)
    assert again is not download and again.wait(10) and again.state == "done"


def test_a_broken_connection_is_a_sentence(starter: StarterDownload, remote: Remote) -> None:
    offer, remote.break_after = starter.ask(), 1000
    download = starter.begin(offer)
    assert download.wait(10) and download.state == "failed" and "start it again" in download.error
    assert not starter.target.exists()
