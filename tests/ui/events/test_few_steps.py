"""The offer above the sampling fields: shown when the settings do not fit a few-step model, filled in by a click."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from modules.core.paths import ModelFolders
from tests.tiny import save_checkpoint
from tests.ui.conftest import Form, running_app, wait_until_ready
from ui.events.few_steps import FewSteps
from ui.events.handlers import Update

FAST = "zoo_lightning_8step.safetensors"
FITTING = ("euler", "sgm_uniform", 8, 1.0)
USUAL = ("dpmpp_2m", "karras", 20, 7.0)


@pytest.fixture
def offers(model_root: Path) -> FewSteps:
    for name in (f"checkpoints/{FAST}", "checkpoints/plain.safetensors", "loras/lcm-lora-sdv1-5.safetensors"):
        (model_root / "models" / name).write_bytes(b"")
    return FewSteps(ModelFolders(model_root))


def shown(update: Update) -> bool:
    return bool(update["offer_panel"].visible)


def test_the_offer_follows_the_files_and_the_settings(offers: FewSteps) -> None:
    update = offers.look(*USUAL, FAST, "", "")
    assert shown(update) and "Settings that fit: Euler, SGM Uniform, 8 steps, CFG 1." in update["offer"]
    assert not shown(offers.look(*FITTING, FAST, ""))
    assert not shown(offers.look(*USUAL, "plain.safetensors", ""))
    assert "LCM" in offers.look(*USUAL, FAST, "", "lcm-lora-sdv1-5")["offer"]


def test_an_empty_field_or_a_missing_file_hides_the_offer(offers: FewSteps) -> None:
    assert not shown(offers.look("euler", "karras", None, 7.0, FAST))
    assert not shown(offers.look(*USUAL, "gone.safetensors"))
    assert offers.use("gone.safetensors") == {}


def test_a_click_fills_the_form(tmp_path: Path, context: Any) -> None:
    file = save_checkpoint(tmp_path / FAST)
    with running_app(tmp_path, {f"checkpoints/{FAST}": file}) as served:
        page = context.new_page()
        page.goto(served.url)
        wait_until_ready(page)
        form, offer = Form(page), page.locator("#ld-offer")
        expect(offer).to_contain_text("few-step model (Lightning)")
        page.locator("#ld-offer-use").click()
        form.holds("Steps", "8")
        form.holds("Sampler", "Euler")
        expect(page.locator("#ld-offer-use")).to_be_hidden()
        form.fill("CFG", 7)
        page.keyboard.press("Tab")
        expect(offer).to_contain_text("CFG 1")
