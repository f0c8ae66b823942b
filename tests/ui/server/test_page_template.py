"""Tests that our script for gradio's own gets into the page, and that it does what gradio's would do."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jinja2 import DictLoader, Environment

from ui.server.page_template import MADE_FOR, PAGE, quicken_page

HTML = '<head><script>{{ config }}</script><script type="module" src="./assets/index.js"></script></head>'
# The events of each component by Gradio's own rule, of every component of the page; returns those that differ.
DIFFERING = """async (core) => {
  const {AppTree} = await import(core), {components, dependencies} = window.gradio_config;
  const tree = Object.create(AppTree.prototype);
  return components.map(({id}) => id).filter((id) => {
    const node = {id, props: {shared_props: {}}};
    tree.find_attached_events(node, dependencies);
    const first = dependencies.map(({targets}) => targets.find(([target]) => target === id));
    const events = first.filter(Boolean).map(([, name]) => name).filter(Boolean);
    return JSON.stringify(events) !== JSON.stringify(node.props.shared_props.attached_events);
  });
}"""
# A tree that is not Gradio's cannot be built by Gradio; returns how often it was to be.
BUILT = """async (core) => {
  const {AppTree} = await import(core), tree = Object.create(AppTree.prototype);
  const reload = (events) => { try { tree.reload([], {}, events); return 0; } catch { return 1; } };
  const same = [{targets: []}];
  tree.find_attached_events({id: 1, props: {shared_props: {}}}, same);
  return [reload(same), reload(same), reload([])];
}"""


def rendered(folder: Path, *names: str, version: str = MADE_FOR + "0") -> str:
    for name in names:
        (folder / name).touch()
    environment = Environment(loader=DictLoader({PAGE: HTML}))
    quicken_page(environment, folder, version)
    return environment.get_template(PAGE).render(config="{}")


def test_our_script_stands_before_the_first_of_gradio(tmp_path: Path) -> None:
    html = rendered(tmp_path, "core-Ab1.js", "index.js")
    assert html.index("./assets/core-Ab1.js") < html.index("./assets/index.js")
    assert "CORE_SCRIPT" not in html and "<script>{}</script>" in html


@pytest.mark.parametrize("names", [(), ("core-a.js", "core-b.js")])
def test_without_the_script_that_it_is_for_the_page_stays_as_it_is(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert rendered(tmp_path, *names) == HTML.replace("{{ config }}", "{}")


def test_another_gradio_is_left_alone(tmp_path: Path) -> None:
    assert rendered(tmp_path, "core-a.js", version="6.99.0") == HTML.replace("{{ config }}", "{}")


def test_gradio_does_what_it_did_but_builds_the_page_once(used_page: Any) -> None:
    core = used_page.evaluate(
        "performance.getEntriesByType('resource').map((r) => r.name).find((n) => /core-/.test(n))"
    )
    assert used_page.evaluate(DIFFERING, core) == []
    is_quick = version("gradio").startswith(MADE_FOR)
    assert used_page.evaluate(BUILT, core) == [0 if is_quick else 1, 1, 1]
