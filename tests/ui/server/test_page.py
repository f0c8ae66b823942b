"""Tests that a browser is not sent the endpoints, and that programs are."""

from __future__ import annotations

import gradio as gr
from gradio.events import api as add_endpoint

from ui.server.page import Page


def double(number: int) -> int:
    return 2 * number


def test_the_page_has_its_own_components_only() -> None:
    with Page() as page:
        box = gr.Textbox()
        box.change(lambda text: text, box, box, api_visibility="private")
        add_endpoint(double, api_name="double")
    config = page.get_config_file()
    types, ours = {one["id"]: one["type"] for one in config["components"]}, config["page"][""]
    assert {types[number] for number in ours["components"]} == {"textbox", "form"}
    assert [types[child["id"]] for child in ours["layout"]["children"]] == ["form"]
    assert not page._is_running_in_reload_thread
    assert ours["dependencies"] == [0] and len(config["dependencies"]) == 2
    assert "api" in types.values()


def test_only_the_arguments_of_endpoints_are_described() -> None:
    with Page() as page:
        gr.Textbox()
        add_endpoint(double, api_name="double")
    described = {one["type"] for one in page.get_config_file()["components"] if "api_info" in one}
    assert described == {"api"}
    page.config = page.get_config_file()  # as when it is launched
    (argument,) = page.get_api_info()["named_endpoints"]["/double"]["parameters"]
    assert argument["type"] == {"type": "integer"}
