"""Defines the page as gradio's Blocks whose browsers are sent neither the endpoints nor what only these need.

A browser looks at every component again and again while it builds the page. Programs ask for the whole configuration.
"""

from __future__ import annotations

from typing import Any

from ui.quick_import import import_gradio

import_gradio()  # otherwise Gradio would write stubs of the class below into this folder

import gradio as gr  # noqa: E402

ENDPOINT = "api"  # the type of a component that stands for an argument or a result
# What gradio says of a component to those who call endpoints with it: a third of the configuration.
DESCRIPTIONS = ("api_info", "api_info_as_input", "api_info_as_output", "example_inputs")


class Page(gr.Blocks):
    exited = False  # until the end of its `with`
    _is_running_in_reload_thread = False  # type: ignore[assignment]  # Gradio would import all its commands to find out

    def get_config_file(self) -> Any:
        """Returns the configuration; an empty one until the page's `with` has ended, since the launch makes another."""
        if not self.exited:
            return {}
        config: Any = super().get_config_file()
        left_out = {component["id"] for component in config["components"] if component["type"] == ENDPOINT}
        endpoints = {one["id"] for one in config["dependencies"] if left_out & {*one["inputs"], *one["outputs"]}}
        for component in config["components"]:
            if component["type"] != ENDPOINT:
                for key in DESCRIPTIONS:
                    component.pop(key, None)
        for page in config["page"].values():
            page["components"] = [number for number in page["components"] if number not in left_out]
            page["dependencies"] = [number for number in page["dependencies"] if number not in endpoints]
            layout = page["layout"]
            layout["children"] = [child for child in layout["children"] if child["id"] not in left_out]
        return config
