"""Tests downloads from a local server that works properly, disconnects, sends wrong data or redirects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modules.core import download
from modules.core.download import DownloadError, Offer, ask, fetch
from modules.core.errors import Cancelled
from modules.core.progress import CancelToken
from tests.hub import Remote, serving


@pytest.fixture
def remote() -> Iterator[Remote]:
    with serving(np.random.default_rng().bytes(300_007)) as remote:
        yield remote


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "checkpoints" / "a model.safetensors"


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def test_asking_fetches_nothing(remote: Remote) -> None:
    offer = ask(f"{remote.url}/resolve")
    assert (offer.size, offer.sha256) == (len(remote.data), hashlib.sha256(remote.data).hexdigest())
    assert remote.requests == [("HEAD", "/resolve", None)]


def test_the_whole_file_under_its_name(remote: Remote, target: Path) -> None:
    counted: list[int] = []
    fetch(ask(f"{remote.url}/resolve"), target, on_bytes=counted.append)
    assert target.read_bytes() == remote.data
    assert counted == sorted(counted) and counted[-1] == len(remote.data)
    assert names(target) == [target.name]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(
    remote: Remote, target: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(download, "CHUNK", 1 << 14)
    remote.break_after, remote.ranges = 100_001, ranges
    offer = ask(f"{remote.url}/resolve")
    with pytest.raises(DownloadError, match=r"stopped after 0\.1 MB of 0\.3 MB.*start it again to resume"):
        fetch(offer, target)
    assert not target.exists()
    (part,) = names(target)
    assert part.startswith(".") and part.endswith(".part")
    remote.break_after = None
    fetch(offer, target)
    assert target.read_bytes() == remote.data and names(target) == [target.name]
    assert remote.requests[-1] == ("GET", "/storage", "bytes=100001-")


def test_what_is_not_the_offered_file_is_deleted(remote: Remote, target: Path) -> None:
    offer = ask(f"{remote.url}/resolve")
    for data in (remote.data[:-1] + b"?", remote.data + b"more"):
        remote.data = data
        with pytest.raises(DownloadError, match="SHA-256 differs"):
            fetch(offer, target)
        assert names(target) == []


def test_a_part_of_another_file_is_not_gone_on_with(remote: Remote, target: Path) -> None:
    remote.break_after = 1000
    with pytest.raises(DownloadError):
        fetch(ask(f"{remote.url}/resolve"), target)
    remote.data, remote.break_after = remote.data[::-1], None
    remote.sha256 = hashlib.sha256(remote.data).hexdigest()
    fetch(ask(f"{remote.url}/resolve"), target)
    assert target.read_bytes() == remote.data


def test_cancelling_keeps_what_there_is_and_shows_no_file(
    remote: Remote, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CHUNK", 1 << 14)
    token = CancelToken()
    with pytest.raises(Cancelled):
        fetch(ask(f"{remote.url}/resolve"), target, on_bytes=lambda _: token.cancel(), cancel=token)
    assert not target.exists()
    fetch(ask(f"{remote.url}/resolve"), target)
    assert target.read_bytes() == remote.data and remote.requests[-1][2] is not None


def test_a_file_that_is_there_is_not_replaced(remote: Remote, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    with pytest.raises(DownloadError, match="already exists"):
        fetch(ask(f"{remote.url}/resolve"), target)
    assert target.read_text() == "mine"


def test_a_full_disk_is_reported_before_the_download(remote: Remote, target: Path) -> None:
    offer = ask(f"{remote.url}/resolve")
    with pytest.raises(DownloadError, match=r"are needed in .* free"):
        fetch(Offer(url=offer.url, size=10**18, sha256=offer.sha256), target)
    assert remote.requests == [("HEAD", "/resolve", None)]


def test_errors_are_sentences(remote: Remote, target: Path) -> None:
    remote.status = 404
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 answered 404 \(Not Found\); try again later"):
        ask(f"{remote.url}/resolve")
    with pytest.raises(DownloadError, match="stopped after 0.0 MB"):
        fetch(Offer(url=f"{remote.url}/storage", size=5, sha256="0" * 64), target)
    with pytest.raises(DownloadError, match=r"localhost cannot be reached \(Connection refused\); check"):
        ask("http://localhost:9/resolve")
    remote.status = 200
    with pytest.raises(DownloadError, match="gives no size and SHA-256"):
        ask(f"{remote.url}/storage")


def test_https_is_never_left(remote: Remote) -> None:
    redirects = download.Redirects()
    request = download.Request("https://example.com/file")
    with pytest.raises(OSError, match="without encryption"):
        redirects.redirect_request(request, None, 302, "Found", download.HTTPMessage(), "http://example.com/file")
