"""Keys and logins: which are right, and what a wrong one costs."""

from __future__ import annotations

import base64

import pytest

from api.errors import Refused
from api.guard.access import Access
from api.guard.admission import Admission
from tests.api.guard.conftest import Clock
from tests.ui.conftest import run_apart

LOGIN = ("me", "se:cret")


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("access", "headers", "allowed"),
    [
        (Access(), {}, True),
        (Access(login=LOGIN), {}, False),
        (Access(login=LOGIN), basic(*LOGIN), True),
        (Access(login=LOGIN), basic("you", "se:cret"), False),
        (Access(login=LOGIN), basic("me", "se"), False),
        (Access(login=LOGIN), bearer("se:cret"), True),
        (Access(login=LOGIN), bearer(""), False),
        (Access(key="ü key"), bearer("ü key"), True),
        (Access(key="ü key"), basic("", "ü key"), True),
        (Access(key="ü key"), basic("ü key", ""), False),
        (Access(key="k", login=LOGIN), basic(*LOGIN), False),
        (Access(key="k"), {"authorization": "Basic ???"}, False),
        (Access(key="k"), {"authorization": "Basic /w=="}, False),
        (Access(key="k"), {"authorization": "k"}, False),
        (Access(key="k"), {"authorization": "Digest k"}, False),
    ],
)
def test_who_is_let_in(access: Access, headers: dict[str, str], *, allowed: bool) -> None:
    assert access.allows(headers) is allowed


def test_after_a_wrong_key_the_same_client_waits(clock: Clock) -> None:
    clock.stands_still = True
    admission = Admission(Access(key="k"))

    async def knock(key: str, address: str = "10.0.0.1") -> int:
        try:
            await admission.check(bearer(key), address)
        except Refused as refused:
            return refused.status
        return 200

    async def visits() -> list[int]:
        first = [await knock("k") for _ in range(20)]
        wrong = [await knock("x") for _ in range(3)]
        return [*first, *wrong, await knock("k", "10.0.0.2"), await knock("k"), await knock("k")]

    assert run_apart(visits()) == [200] * 20 + [401] * 3 + [200] * 3
    assert clock.waits == [0.0, 0.5, 1.5, 3.5], "the right key waits too, so that guesses cannot be told apart by time"


def test_too_many_guesses_are_sent_away() -> None:
    admission = Admission(Access(key="k"))
    for _ in range(50):
        admission._logins.begin("10.0.0.1")
    with pytest.raises(Refused, match="wait a minute"):
        run_apart(admission.check(bearer("x"), "10.0.0.1"))
