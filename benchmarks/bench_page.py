"""Times the web page from launching ./run.sh to the first response, the Generate button and the filled form.

python -m benchmarks.bench_page; needs an installed project and Chromium, which shares the cores with the app.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.common import ROOT, summarise, timing_row, write_result

MILESTONES = ("answers", "button", "form")


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
            page.close()
        finally:
            app.terminate()
            app.wait()
    return dict(zip(MILESTONES, seconds, strict=True))


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
        starts = [one_start(browser) for _ in range(runs + 1)][1:]  # the first run fills the disk cache
        browser.close()
    rows = [timing_row(name, summarise([start[name] for start in starts])) for name in MILESTONES]
    write_result("page", rows)


if __name__ == "__main__":
    main()
