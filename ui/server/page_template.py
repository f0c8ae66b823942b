"""Puts our script for gradio's own into the HTML of the page. Scripts of gradio's `head` come too late for it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import ChoiceLoader, DictLoader, Environment

PAGE = "frontend/index.html"
FIRST_SCRIPT = '<script type="module"'
QUICK_TREE = Path(__file__).parents[1] / "browser" / "quick_tree.mjs"
MADE_FOR = "6.31."  # the gradio whose script ours knows; with another one, gradio does what it always does
CORE_SCRIPT = "CORE_SCRIPT"  # stands in ours for the name of gradio's, which contains a hash


def quicken_page(environment: Environment, assets: Path, version: str) -> None:
    """Changes the templates of this version of gradio; `assets` is the folder of its scripts.

    It changes nothing if ours was not made for that version, or gradio does not have the script that ours is for.
    """
    if not version.startswith(MADE_FOR):
        return
    cores = [path.name for path in assets.glob("core-*.js")]
    if len(cores) != 1 or environment.loader is None:
        return
    script = QUICK_TREE.read_text(encoding="utf-8").replace(CORE_SCRIPT, cores[0])
    ours = f'<script type="module">{{% raw %}}{script}{{% endraw %}}</script>'
    page = environment.loader.get_source(environment, PAGE)[0]
    changed = page.replace(FIRST_SCRIPT, ours + FIRST_SCRIPT, 1)
    environment.loader = ChoiceLoader([DictLoader({PAGE: changed}), environment.loader])
