"""Absent text encoders come to the device one at a time, each with its patches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from modules.generation.memory.encoders import OneAtATime, encoders_at_work
from modules.generation.options import GenerationOptions, LoraChoice
from modules.loader.patcher import ModelPatcher
from modules.loader.placement import TEXT
from tests import tiny_project


def places(module: nn.Module) -> list[int]:
    return [parameter.data_ptr() for parameter in module.parameters()]


def test_each_leaves_before_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.loader.visit.is_away", lambda network, device: True)
    both = nn.ModuleDict({"clip_l": nn.Linear(2, 2), "clip_g": nn.Linear(3, 3)})
    home = {name: places(encoder) for name, encoder in both.items()}
    text = ModelPatcher(both, "cpu")

    class Model:
        away = (TEXT,)

    class Absent:
        model, texts = Model(), None

    with encoders_at_work(Absent(), text) as encoders:  # type: ignore[arg-type]
        assert isinstance(encoders, OneAtATime) and list(encoders) == ["clip_l", "clip_g"] and len(encoders) == 2
        for name, other in (("clip_l", "clip_g"), ("clip_g", "clip_l")):
            assert encoders[name] is both[name]
            assert places(both[name]) != home[name] and places(both[other]) == home[other]
    assert {name: places(encoder) for name, encoder in both.items()} == home


def test_encoders_on_the_device_get_their_patches_in_place(tmp_path: Path) -> None:
    session = tiny_project.session_at(tiny_project.project(tmp_path))
    model = session.model(GenerationOptions(prompt=""))
    before = [weight.clone() for weight in model.text.module.parameters()]
    with torch.inference_mode():
        _, text = session.patched(model, [LoraChoice(name="ink")])
        networks = session.networks(model, "off")
        with encoders_at_work(networks, text) as encoders:
            assert encoders is networks.texts
    assert any(not torch.equal(a, b) for a, b in zip(before, model.text.module.parameters(), strict=True))
