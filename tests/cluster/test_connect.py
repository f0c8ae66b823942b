"""Finding a cluster: an address that answers nothing is one sentence, and the number of workers fits the machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from modules.cluster import connect
from modules.cluster.connect import check_answers, chosen_workers
from modules.core.errors import DeviceError, OptionsError


@pytest.fixture
def silent() -> socket.socket:
    """A port that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    return listener


@pytest.mark.parametrize("address", ["nix", "", "ray://127.0.0.1:1", "127.0.0.1", "127.0.0.1:99999", "a b:1", "\0:1"])
def test_a_wrong_address_is_a_sentence(address: str) -> None:
    with pytest.raises(OptionsError, match=r"^--cluster .*\.$"):
        check_answers(address)


def test_a_closed_port_is_a_sentence_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(OptionsError, match=r"nothing answers there \(Connection refused\); start one with"):
        check_answers("127.0.0.1:1")
    assert time.monotonic() - began < 2


def test_a_port_that_never_answers_is_a_sentence(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "PROBE_SECONDS", 2)
    with silent, pytest.raises(OptionsError, match="no Ray cluster answers there"):
        check_answers(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the number of GPUs that Ray finds."""

    def found(number: int) -> None:
        monkeypatch.setattr(connect.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": float(number)})

    return found


def test_there_is_one_worker_for_each_gpu(gpus: Callable[[int], None]) -> None:
    gpus(8)
    assert chosen_workers(None, None, local=True) == (8, True) == chosen_workers(None, "cuda", local=False)
    assert chosen_workers(3, None, local=True) == (3, True)
    assert chosen_workers(3, "cpu", local=True) == (3, False)
    with pytest.raises(OptionsError, match="needs a GPU for each, but this machine has 8"):
        chosen_workers(9, None, local=True)


def test_without_a_gpu_workers_share_the_cpu(gpus: Callable[[int], None]) -> None:
    gpus(0)
    assert chosen_workers(None, None, local=True)[0] in (1, 2) and chosen_workers(4, None, local=True) == (4, False)
    with pytest.raises(DeviceError, match="Ray finds no NVIDIA GPU"):
        chosen_workers(None, "cuda", local=True)


def test_a_cluster_may_start_gpus_when_they_are_asked_for(gpus: Callable[[int], None]) -> None:
    gpus(0)
    assert chosen_workers(12, "cuda", local=False) == (12, True)
    with pytest.raises(OptionsError, match="give --workers N"):
        chosen_workers(None, "cuda", local=False)


def test_a_ray_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*given: object, **settings: object) -> None:
        raise RuntimeError("Failed to start GCS.\nLast 0 lines of error files:")

    monkeypatch.setattr(connect.ray, "init", init)
    with pytest.raises(
        DeviceError, match=r"^--cluster local: Ray does not start \(Failed to start GCS\); try again\.$"
    ):
        connect.initialise("local")
