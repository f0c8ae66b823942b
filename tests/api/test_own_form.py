"""What the guard refuses is told in the form that each client reads; elsewhere it is a line of text."""

from __future__ import annotations

import http.client
import json

import httpx
import pytest

from tests.api.conftest import Served

FOREIGN = {"Origin": "http://evil.example"}
STRANGE = {"Host": "evil.example"}


@pytest.mark.parametrize(("headers", "status", "words"), [(FOREIGN, 403, "site"), (STRANGE, 400, "evil.example")])
def test_each_dialect_gets_its_own_json(served: Served, headers: dict[str, str], status: int, words: str) -> None:
    a1111 = httpx.post(f"{served.url}/sdapi/v1/txt2img", headers=headers)
    openai = httpx.post(f"{served.url}/v1/images/generations", headers=headers)
    other = httpx.post(f"{served.url}/elsewhere", headers=headers)
    assert {answer.status_code for answer in (a1111, openai, other)} == {status}
    assert words in a1111.json()["detail"] and words in openai.json()["error"]["message"]
    assert other.text.count("\n") == 1 and words in other.text
    assert other.headers["content-type"].startswith("text/plain") and other.headers["connection"] == "close"


def test_a_body_that_is_too_large_is_told_in_json(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.putrequest("POST", "/v1/images/generations")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and "too large" in json.loads(answer.read())["error"]["message"]
    connection.close()
