"""Tests the page's scripts that no other test needs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ui.browser.test_start_request import held as held
from tests.ui.browser.test_start_request import wait_for_one
from tests.ui.conftest import Form


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def test_the_page_says_that_the_server_has_stopped(page: Any, form: Form, held: list[Any]) -> None:
    with page.expect_response("**/robots.txt") as answered:
        pass
    assert answered.value.ok, "the browser would write an error to its console every few seconds"
    form.prompt(steps=1)
    form.generate()
    request = wait_for_one(page, held)
    page.route("**/robots.txt", lambda route: route.abort())
    form.wait_for("The server has stopped")
    page.unroute("**/robots.txt")
    form.wait_for("The server is back")
    request.continue_()
    form.wait_for("Done")
