"""Times the web page: from ./run.sh to the first response, the Generate button and the filled form; from a click on
Generate to the page's answer and to the server's first words, the first time and once the model is loaded; and what
previews cost. Beside it, in the same minute, a page of Gradio's with one button: what no page can be faster than.

python -m benchmarks.bench_page; needs an installed project and Chromium, which shares the cores with the app.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.common import ROOT, summarise, timing_row, write_result
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.options import GenerationOptions
from modules.generation.session import Session
from modules.tasks import queued_task
from modules.tasks.queue import TaskQueue
from modules.tasks.task import MakePictures

CLICKS = ("first click", "first words of the server", "next click", "next words of the server")
MILESTONES = ("answers", "button", "form", *CLICKS)
# A page with one button, as Gradio comes, and with our import of Gradio (see ui/quick_import.py).
EMPTY_PAGE = """
import sys
import gradio
with gradio.Blocks(analytics_enabled=False) as page:
    gradio.Button("Generate", elem_id="ld-generate")
page.launch(server_port=int(sys.argv[1]), ssr_mode=False, quiet=True)
"""
QUICKLY = "from ui.quick_import import import_gradio; import_gradio()"
EMPTY_PAGES = {"empty page of Gradio": EMPTY_PAGE, "empty page, imported our way": QUICKLY + EMPTY_PAGE}
# Clicks Generate, and returns the seconds until the browser has drawn the page's own answer, and the server's first
# words. Without an answer of its own, the page's answer is the server's words.
CLICK = """() => new Promise((done) => {
  const textOf = (selector) => document.querySelector(selector)?.textContent || ''
  const words = () => textOf('#ld-stage .ld-words')
  const before = words(), seconds = []
  const began = performance.now()
  const watch = new MutationObserver(() => {
    const hasServer = words() && words() !== before && !textOf('#ld-answer')
    const wanted = hasServer ? 2 : textOf('#ld-answer') ? 1 : 0
    if (hasServer) watch.disconnect()
    if (wanted) requestAnimationFrame(() => setTimeout(() => {
      while (seconds.length < wanted) seconds.push((performance.now() - began) / 1000)
      if (wanted === 2) done(seconds)
    }))
  })
  watch.observe(document.querySelector('#ld-stage'), {subtree: true, childList: true, characterData: true})
  document.querySelector('#ld-generate').click()
})"""
PREVIEWED = {"prompt": "a red circle on a blue background", "width": 512, "height": 512, "steps": 40, "seed": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_answer(url: str) -> None:
    for _ in range(3000):
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"nothing answers at {url}")


def one_start(browser: Any) -> dict[str, float]:
    """Returns the seconds since ./run.sh at each milestone, with a fresh settings file and output folder."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        url, began = f"http://127.0.0.1:{port}/", time.perf_counter()
        command = ["./run.sh", "--port", str(port), "--output-dir", f"{folder}/out", "--settings", f"{folder}/s.json"]
        app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            wait_for_answer(url)
            seconds = [time.perf_counter() - began]
            page = browser.new_page()
            page.goto(url)
            for selector in ("#ld-generate", "body[data-ld-ready]"):
                page.locator(selector).wait_for()
                seconds.append(time.perf_counter() - began)
            for _ in range(2):
                seconds += page.evaluate(CLICK)
                page.locator("#ld-stage .ld-words", has_text="Done").wait_for()
            page.close()
        finally:
            app.terminate()
            app.wait()
    return dict(zip(MILESTONES, seconds, strict=True))


def one_empty_start(browser: Any, code: str) -> list[float]:
    """Returns the seconds from the start of an empty page to its answer and to its button."""
    port = free_port()
    url, began = f"http://127.0.0.1:{port}/", time.perf_counter()
    offline = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    app = subprocess.Popen([sys.executable, "-c", code, str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, env=offline)
    try:
        wait_for_answer(url)
        seconds = [time.perf_counter() - began]
        page = browser.new_page()
        page.goto(url)
        page.locator("#ld-generate").wait_for()
        seconds.append(time.perf_counter() - began)
        page.close()
    finally:
        app.terminate()
        app.wait()
    return seconds


def empty_rows(starts: Sequence[Mapping[str, list[float]]]) -> list[dict[str, object]]:
    return [
        timing_row(f"{name}: {milestone}", summarise([start[name][number] for start in starts]))
        for name in EMPTY_PAGES
        for number, milestone in enumerate(MILESTONES[:2])
    ]


def preview_row(runs: int) -> dict[str, object]:
    """Returns the time of one long picture, and the share of it that goes to making previews (measured around each)."""
    spent: list[float] = []
    encode = queued_task.encode_preview

    def timed(denoised: Any, family: str) -> bytes:
        began = time.perf_counter()
        preview = encode(denoised, family)
        spent.append(time.perf_counter() - began)
        return preview

    session = Session(ModelFolders(ROOT), device="cpu")
    options = GenerationOptions(checkpoint="demo", **PREVIEWED)
    seconds, shares, counts = [], [], []
    queued_task.encode_preview = timed
    with tempfile.TemporaryDirectory() as folder:
        queue = TaskQueue(lambda: session, OutputFolder(Path(folder)))
        for _ in range(runs + 1):
            spent.clear()
            queued = queue.submit(MakePictures(options=options))
            queued.wait()
            if queued.state != "done":
                raise SystemExit(queued.error)
            seconds.append(queued.seconds)
            shares.append(sum(spent) / queued.seconds)
            counts.append(len(spent))
        queue.close()
    queued_task.encode_preview = encode
    share = {"preview_share": statistics.median(shares[1:]), "previews": statistics.median(counts[1:])}
    return timing_row("picture with previews", summarise(seconds[1:]), **PREVIEWED, **share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        print("no Chromium: nothing measured")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        starts, empty_starts = [], []
        for _ in range(runs + 1):
            starts.append(one_start(browser))
            empty_starts.append({name: one_empty_start(browser, code) for name, code in EMPTY_PAGES.items()})
        browser.close()
    starts, empty_starts = starts[1:], empty_starts[1:]  # the first run fills the disk cache
    rows = [timing_row(name, summarise([start[name] for start in starts])) for name in MILESTONES]
    rows += empty_rows(empty_starts)
    rows.append(preview_row(runs))
    write_result("page", rows)


if __name__ == "__main__":
    main()
