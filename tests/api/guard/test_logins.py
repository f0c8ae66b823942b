"""Failed logins: who has to wait, and how long."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest

from api.guard.guard import Guard
from api.guard.logins import MOST_CLIENTS, Logins, network_of
from tests.api.guard.asgi import Server, ask
from tests.api.guard.conftest import Clock
from ui.server.upload_folder import UploadFolder


def test_wrong_logins_wait_longer_and_a_right_one_forgives(tmp_path: Path, clock: Clock) -> None:
    server = Server(auth={"me": "x"})
    wall = Guard(server, UploadFolder(tmp_path))
    server.wrong = True
    for _ in range(8):
        assert ask(server, tmp_path, path="/login", wall=wall)[0] == 400
    server.wrong = False
    ask(server, tmp_path, path="/login", wall=wall)
    ask(server, tmp_path, path="/login", wall=wall)
    assert clock.waits == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 0.0]


def test_many_logins_at_once_wait_one_behind_the_other(tmp_path: Path) -> None:
    logins = Logins()
    waits = [logins.begin("1.2.3.4") for _ in range(1000)]
    taken = [wait for wait in waits if wait is not None]
    assert taken == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5], abs=0.2)
    assert logins.begin("5.6.7.8") == 0 and Logins(OrderedDict({"1.2.3.4": (5000, 0.0)})).begin("1.2.3.4") == 8
    server = Server(auth={"me": "x"})
    wall = Guard(server, UploadFolder(tmp_path))
    wall._logins = logins
    status, _, body = ask(server, tmp_path, path="/login", wall=wall)
    assert status == 429 and b"wait a minute" in body and server.reached == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_logins_are_counted_by_the_owner_of_the_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_another_address_of_the_same_network_waits_as_well(tmp_path: Path, clock: Clock) -> None:
    clock.stands_still = True
    server = Server(auth={"me": "x"})
    server.wrong = True
    wall = Guard(server, UploadFolder(tmp_path))
    for client in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "10.0.0.1", "10.0.0.2"):
        ask(server, tmp_path, path="/login", wall=wall, client=client)
    assert clock.waits == [0, 0.5, 0, 0, 0]


def test_the_memory_of_wrong_logins_is_bounded() -> None:
    logins = Logins()
    for number in range(5000):
        logins.begin(str(number))
    assert len(logins.wrong) == MOST_CLIENTS and logins.begin("4999") > 0
