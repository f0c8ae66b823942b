"""Who is let in, from where, and in which form the others are answered."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
import webuiapi

from tests.api.asgi import Caller, desk_without_engine
from tests.api.conftest import KEY, SMALL, Served

OPTIONS = "/sdapi/v1/options"
SITE = "http://localhost:3000"


def test_the_clients_login_opens_it(served: Served) -> None:
    client = webuiapi.WebUIApi(port=served.locked_port, username="any name", password=KEY)
    assert client.txt2img(**SMALL).image.size == (64, 64)
    assert httpx.get(f"{served.locked_url}{OPTIONS}", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_without_it_every_call_is_refused(served: Served) -> None:
    began = time.monotonic()
    for path in (OPTIONS, "/sdapi/v1/zork", "/controlnet/version"):
        answer = httpx.get(f"{served.locked_url}{path}")
        assert answer.status_code == 401 and "key or a login" in answer.json()["detail"]
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert time.monotonic() - began < 5, "asking without a key is no attempt"
    large = httpx.post(f"{served.locked_url}/sdapi/v1/png-info", content=b"x" * 2**20)
    assert large.status_code == 401, "the body of a stranger is not read"


def test_other_names_of_this_computer_are_given_on_purpose(served: Served) -> None:
    for host, status in (("evil.example", 400), ("localhost", 200), ("host.docker.internal:7860", 200)):
        assert httpx.get(f"{served.url}{OPTIONS}", headers={"Host": host}).status_code == status, host


def test_other_sites_are_refused_unless_given(served: Served) -> None:
    url = f"{served.url}/sdapi/v1/interrupt"
    assert httpx.post(url, headers={"Origin": "http://evil.example"}).status_code == 403, "even without a body"
    allowed = httpx.post(url, headers={"Origin": SITE, "Sec-Fetch-Site": "cross-site"})
    assert allowed.status_code == 200 and allowed.headers["Access-Control-Allow-Origin"] == SITE
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = httpx.options(url, headers={"Origin": SITE, **asked})
    assert preflight.status_code == 204 and preflight.headers["Access-Control-Allow-Headers"] == "authorization"
    stranger = httpx.options(url, headers={"Origin": "http://evil.example", **asked})
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_a_large_body_is_for_pictures(served: Served) -> None:
    url = f"{served.url}/sdapi/v1/png-info"
    assert httpx.post(url, content=b" " * 5 * 2**20 + b"{}").status_code == 400


def test_a_bug_is_answered_in_the_clients_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_without_engine(tmp_path)
    monkeypatch.setattr(desk.folders, "list", lambda kind: 1 / 0)
    ((status, told),) = Caller(desk).call([("GET", "/sdapi/v1/loras", b"")])
    assert status == 500 and "ZeroDivisionError" in told["detail"]
