"""The page itself: sizes, accessibility, start-up without torch, access rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from modules.core.errors import OptionsError
from tests.ui.conftest import DEMO, PROMPT, TWO_FRAMES, Form, Served, axe_finds, running_app, wait_until_ready
from ui.app import main, make_desk, make_gate
from ui.arguments import build_parser, read_arguments, read_auth

TABS = ("Pictures", "Models", "Compare", "History", "Help")
LONG_WORD = "supercalifragilistic" * 15
LONG_FILE = f"{'m' * 200}.safetensors"


# The innermost elements on screen that extend beyond the window, unless something around them scrolls. Gradio's hidden
# copies of tabs, which measure the tabs' widths, are left out.
BEYOND = """() => {
  const edge = document.documentElement.clientWidth;
  const box = (one) => one.getBoundingClientRect();
  const over = (one) => box(one).height > 0 && (box(one).right > edge + 1 || box(one).left < -1);
  const scrolls = (one) => one && (['auto', 'scroll'].includes(getComputedStyle(one).overflowX) && !over(one)
    || scrolls(one.parentElement));
  const off = [...document.body.querySelectorAll('*')].filter(one => over(one) && one.getClientRects().length
    && one.checkVisibility({checkVisibilityCSS: true, checkOpacity: false})
    && !one.closest('.visually-hidden') && !scrolls(one.parentElement));
  return off.filter(one => !off.some(other => other !== one && one.contains(other)))
    .map(one => `${Math.round(box(one).left)} to ${Math.round(box(one).right)}: ${one.outerHTML.slice(0, 120)}`);
}"""


@pytest.fixture
def page(used_page: Any) -> Any:
    return used_page


def nothing_beyond_the_edge(page: Any) -> None:
    """Checks the page repeatedly, since the layout may take a moment to settle after a change of width or tab."""
    for _ in range(100):
        if not (beyond := page.evaluate(BEYOND)):
            break
        page.wait_for_timeout(100)
    assert beyond == [], "\n".join(["beyond the edge, from x to x:", *beyond[:12]])
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_nothing_is_off_screen(page: Any, form: Form, served: Served) -> None:
    for width, height in ((1280, 800), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        form.prompt(steps=2)
        for name in TABS:
            form.show(name)
            nothing_beyond_the_edge(page)
        page.get_by_role("tab", name="Image to image").click()
        nothing_beyond_the_edge(page)
        page.get_by_role("tab", name="Text to image").click()
        form.make(served)
        form.show("Pictures")
        page.locator("#ld-gallery img").first.wait_for()
        nothing_beyond_the_edge(page)


# Fields whose contents are wider than they are, so that they reach into the next one.
SPILLED = """() => [...document.querySelectorAll('#ld-form .block:has(input):not(:has(.block))')]
  .filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth + 2).map(one => one.innerText)"""


def test_no_field_reaches_into_the_next(page: Any, form: Form) -> None:
    for part in ("LoRA and VAE", "HiresFix", "ControlNet", "More"):
        form.unfold(part)
    for width in (1560, 1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.evaluate(TWO_FRAMES)
        assert page.evaluate(SPILLED) == [], width
    assert form.field("Original size").get_attribute("placeholder") == "WxH (SDXL)"


@pytest.fixture
def long_names(tmp_path: Path, demo_checkpoint: Path) -> Iterator[Served]:
    """An app with the longest names for folder, model files and pictures that a disk allows."""
    folder = tmp_path / ("folder" * 40)
    folder.mkdir()
    with running_app(folder, {f"checkpoints/{DEMO}": demo_checkpoint}) as served:
        day = served.output / "2020-01-01"
        day.mkdir(parents=True)
        for index in range(6):
            info = PngInfo()
            info.add_text("parameters", f"{LONG_WORD}\nSteps: 2, Sampler: Euler, Seed: {index}, Size: 64x64")
            Image.new("RGB", (640, 64), (40 * index, 90, 90)).save(day / f"0000{index}-{'9' * 200}.png", pnginfo=info)
        yield served


WIDE_AND_NARROW = (1280, 320)


def nothing_beyond_either_edge(page: Any) -> None:
    for width in WIDE_AND_NARROW:
        page.set_viewport_size({"width": width, "height": 844})
        nothing_beyond_the_edge(page)


@pytest.mark.slow
def test_long_words_and_names_stay_on_screen(context: Any, long_names: Served) -> None:
    page = context.new_page()
    page.goto(long_names.url)
    wait_until_ready(page)
    form = Form(page)
    form.show("Help")
    page.locator("#ld-first-run").wait_for()
    nothing_beyond_either_edge(page)
    checkpoints = long_names.handlers.folders.folders("checkpoints")[0]
    shutil.copy(checkpoints / DEMO, checkpoints / LONG_FILE)
    page.locator("#ld-refresh").click()
    expect(page.locator("#ld-first-run")).to_be_hidden()
    form.choose("Checkpoint", LONG_FILE)
    form.prompt(LONG_WORD, steps=1)
    for label, value in {"Width": 64, "Height": 64, "Negative prompt": LONG_WORD, "Seed": LONG_WORD}.items():
        form.fill(label, value)
    form.generate()
    assert LONG_WORD[:150] in form.message()
    nothing_beyond_either_edge(page)
    form.fill("Seed", 5)
    form.make(long_names)
    page.locator("#ld-picture-use").click()
    page.locator("#ld-picture-details .ld-note").wait_for()
    for name in TABS:
        form.show(name)
        nothing_beyond_either_edge(page)
    form.show("History")
    page.locator("#ld-history img").nth(6).click()
    expect(page.locator("#ld-history-text textarea")).to_have_value(re.compile(LONG_WORD))
    nothing_beyond_either_edge(page)


def test_axe_finds_nothing(open_page: Any, served: Served) -> None:
    page = open_page()
    form = Form(page)
    form.prompt(steps=2)
    form.make(served)
    page.locator("#ld-picture-text").wait_for()
    for label in ("LoRA and VAE", "HiresFix", "More"):
        form.unfold(label)
    for label in ("LoRA 1", "Upscaler", "Clip skip"):
        expect(form.field(label)).to_be_visible()
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(TWO_FRAMES)  # before them, the transitions to the other colours have not begun
        expect(page.locator("body.dark")).to_have_count(1 if scheme == "dark" else 0)
        assert axe_finds(page) == [], scheme


def test_keyboard_alone_can_generate(page: Any, form: Form) -> None:
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type(PROMPT)
    form.fill("Steps", 2)
    page.get_by_label("Prompt", exact=True).focus()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        if reached[-1] == "ld-generate":
            break
    assert reached[-1] == "ld-generate"
    page.keyboard.press("Enter")
    form.wait_for("Done")


# Everything on screen that responds to a mouse, except for Gradio's hidden copies of tabs.
LEFT_OUT = """() => [...document.querySelectorAll('button, input, textarea, a[href], [role=tab]')]
  .filter(one => one.checkVisibility({checkVisibilityCSS: true, checkOpacity: false}) && !one.disabled
    && one.getClientRects().length && !one.closest('.visually-hidden') && !one.dataset.seen)
  .map(one => one.id || one.getAttribute('aria-label') || one.innerText || one.outerHTML.slice(0, 200))"""


def test_the_keyboard_reaches_every_control(page: Any, form: Form) -> None:
    for name in ("LoRA and VAE", "HiresFix", "ControlNet", "More", "Restore settings from a picture"):
        form.unfold(name)
    expect(form.field("Clip skip")).to_be_visible()
    expect(form.field("ControlNet 1 model")).to_be_visible()
    page.get_by_role("button", name="Free memory").focus()
    for _ in range(150):
        page.evaluate("document.activeElement.dataset.seen = 'yes'")
        page.keyboard.press("Tab")
    assert page.evaluate(LEFT_OUT) == []


def test_building_the_page_imports_no_torch(project_root: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from ui.app import *; stay_offline();"
        f"a = build_parser().parse_args(['--output-dir', {str(tmp_path)!r}]);"
        "build_app(make_handlers(a)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=project_root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_only_the_output_folder_can_be_read(served: Served, project_root: Path) -> None:
    for path in ("/etc/hostname", project_root / "README.md", served.settings, served.output / "last_seed.json"):
        assert httpx.get(f"{served.url}gradio_api/file={path}").status_code in (403, 404), path


def test_other_sites_cannot_use_the_app(served: Served) -> None:
    answer = httpx.get(f"{served.url}config", headers={"Origin": "https://example.com"})
    assert "access-control-allow-origin" not in answer.headers
    for host, status in (("example.com", 400), ("localhost", 200), ("127.0.0.1:7860", 200), ("[::1]:7860", 200)):
        assert httpx.get(f"{served.url}config", headers={"Host": host}).status_code == status, host


def test_listening_without_a_login_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delenv("LIGHTDIFFUSION_AUTH", raising=False)
    assert main(["--listen"]) == 2
    assert "--auth NAME:PASSWORD" in capsys.readouterr().err
    assert main(["--auth", "onlyname"]) == 2
    with pytest.raises(OptionsError):
        read_auth(None, "192.168.1.5")
    assert read_auth("me:se:cret", "0.0.0.0") == ("me", "se:cret")
    assert read_auth(None, "127.0.0.1") is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--no-page", "--no-api"], "nothing to serve"),
        (["--no-page", "--open"], "nothing to"),
        (["--no-page", "--listen"], "--api-key KEY is enough"),
        (["--listen", "--api-key", "k"], "--auth NAME:PASSWORD"),
        (["--allow-host", "http://localhost:7860"], "without http:// and port"),
        (["--allow-host", "*"], "host.docker.internal"),
        (["--allow-origin", "localhost"], "http://localhost:3000"),
        (["--allow-origin", "http://localhost/path"], "without a path"),
    ],
)
def test_what_the_api_cannot_be_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.delenv("LIGHTDIFFUSION_AUTH", raising=False)
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_a_bad_table_of_kernels_is_refused_at_once(project_root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    arguments = read_arguments(build_parser(), ["--stable-fast-table", str(tmp_path / "bad.json")])
    with pytest.raises(OptionsError, match="bad.json"):
        make_desk(arguments)


def test_a_key_is_enough_for_the_api_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTDIFFUSION_AUTH", raising=False)
    monkeypatch.setenv("LIGHTDIFFUSION_API_KEY", "k")
    gate = make_gate(read_arguments(build_parser(), ["--no-page", "--listen", "--allow-origin", "HTTP://X.y:3000/"]))
    assert (gate.access.key, gate.access.login, gate.origins) == ("k", None, ("http://x.y:3000",))
    assert not make_gate(read_arguments(build_parser(), ["--no-api"])).is_api("/sdapi/v1/options")


def test_unknown_arguments_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nonsense"]) == 2
    assert "see --help" in capsys.readouterr().err


def test_a_slider_moves_with_its_number_which_may_be_any(page: Any, form: Form) -> None:
    steps, width = (page.get_by_label(f"{name}, slider", exact=True) for name in ("Steps", "Width"))
    form.fill("Steps", 500)
    expect(steps).to_have_value("60")
    form.holds("Steps", "500")
    width.fill("512")
    form.holds("Width", "512")
    form.holds("Shape", "Own size")
