"""Stable-Fast for networks other than the UNet: same pictures, no repeated traces, LoRAs and fallbacks still work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modules.generation import latents
from modules.generation.networks import Networks
from modules.generation.options import ControlChoice, GenerationOptions, LoraChoice
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.images.likeness import difference
from modules.stable_fast import engine
from modules.text.encode import encode_texts
from tests import tiny, tiny_project
from tests.stable_fast.networks import random, rel_error
from tests.stable_fast.test_unet_runner_captured import AddressPool

TOLERANCE = 1e-5


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path))


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, everything is compiled and replayed on recorded addresses."""
    monkeypatch.setattr(engine, "can_capture", lambda device: True)
    monkeypatch.setattr("modules.stable_fast.runtime.capture_table.GraphPool", AddressPool)
    monkeypatch.setattr("modules.generation.networks.WORTH_IT_ON_CPU", PARTS)


PARTS = ("VAE decoder", "VAE encoder", "text encoder", "ControlNet")
REPORTED = {"VAE decoder", "VAE encoder", "text encoder clip_l", "ControlNet 1"}


def options(**changes: object) -> GenerationOptions:
    values = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 5, "cfg": 3.0}
    return GenerationOptions(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("level", ["full", "graph"])
def test_whole_requests_captured(session: Session, level: str) -> None:
    control = ControlChoice(name="edges", image=session.folders.folders("checkpoints")[0].parents[1] / "photo.png")
    lora = LoraChoice(name="ink", strength=0.5, text_strength=0.8)
    requests = [options(), options(prompt="a dog", controls=(control,)), options(loras=(lora,)), options(seed=6)]
    for request in requests:
        eager = list(generate(request, session))[0].image
        fast = list(generate(options(**vars(request) | {"stable_fast": level}), session))[0].image
        assert difference(eager, fast)[0] >= 50
    report = session.stable_fast_report
    assert report is not None and set(report.parts) == REPORTED
    assert [part.level for part in report.parts.values()] == [level] * 4
    assert report.parts["VAE decoder"].counters.captures == 1
    assert report.parts["text encoder clip_l"].counters.captures == 1
    assert report.parts["VAE decoder"].counters.traces == (1 if level == "full" else 0)
    assert "VAE decoder" in report.to_text() and "VAE" not in report.status_line()


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("level", ["full", "graph"])
def test_both_text_encoders_of_sdxl_captured(tmp_path: Path, level: str) -> None:
    tiny.save_checkpoint(tmp_path / "models" / "checkpoints" / "xl.safetensors", sdxl=True)
    session = tiny_project.session_at(tmp_path)
    networks = Networks(session.model(options()), level)
    for prompts in (["a cat"], ["a (cat:1.3)", "dogs " * 90]):  # one chunk, then five
        texts, how = session.model(options()).spec.texts, {"emphasis": "comfy", "tokenizer": session.tokenizer}
        eager = encode_texts(dict(networks.model.text.module.named_children()), texts, prompts, **how)
        fast = encode_texts(networks.texts, texts, prompts, **how)
        for prompt in prompts:
            assert rel_error(fast[prompt].context, eager[prompt].context) < TOLERANCE
            assert rel_error(fast[prompt].pooled, eager[prompt].pooled) < TOLERANCE
    for name in ("text encoder clip_l", "text encoder clip_g"):
        report = networks._parts[name].report
        assert report.level == level and report.counters.traces == (1 if level == "full" else 0)
    networks.release()


@torch.inference_mode()
def test_the_decoder_on_a_cpu_is_fused_once_for_all_sizes(session: Session) -> None:
    model = session.model(options())
    networks = Networks(model, "full")
    for shape in ((1, 4, 8, 8), (1, 4, 8, 16), (1, 4, 8, 8)):
        z = random(*shape)
        assert rel_error(networks.decode(z), model.vae.decode(z)) < TOLERANCE
    part = networks._parts["VAE decoder"]
    assert part.report.counters.traces == 1 and networks.encode == model.vae.encode
    assert networks.texts == dict(model.text.module.named_children())
    networks.release()
    assert networks._parts == {}


def test_tiles_and_a_wider_type_work_with_a_compiled_decoder(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = session.model(options())
    networks = Networks(model, "full")
    z = random(1, 4, 72, 64)
    with monkeypatch.context() as patch:
        patch.setattr(latents, "free_memory", lambda device: 0)
        tiled, expected = (latents.decode_latents(model.vae, z, run) for run in (networks.decode, model.vae.decode))
    assert (tiled - expected).abs().max() < 1e-3
    with torch.no_grad():
        model.vae.decoder.conv_in.weight.mul_(1e5)
        model.vae.decoder.conv_in.bias.mul_(1e5)
    expected = latents.decode_latents(model.vae, z[..., :4, :4])
    half = Networks(session.model(options()), "full")
    model.vae.half()
    with caplog.at_level("INFO"):
        assert (latents.decode_latents(model.vae, z[..., :4, :4], half.decode) - expected).abs().max() < 0.05
    assert "float32 from now on" in caplog.text and "starts over" in caplog.text, "nothing of the narrow type is kept"
    counters = half._parts["VAE decoder"].report.counters
    before = counters.traces
    assert torch.isfinite(latents.decode_latents(model.vae, z[..., :4, :4], half.decode)).all()
    assert counters.traces == before


def test_a_network_that_cannot_be_traced_runs_eagerly_and_says_so(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = session.model(options())
    networks = Networks(model, "full")

    def refuse(*arguments: object, **named: object) -> None:
        raise NotImplementedError("no such operation")

    monkeypatch.setattr(engine, "compile_program", refuse)
    z = random(1, 4, 8, 8)
    with torch.inference_mode():
        assert torch.equal(networks.decode(z), model.vae.decode(z))
    networks.unet(model.unet)
    report = networks.report
    assert report is not None and "VAE decoder off (no such operation)" in report.status_line()


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["full", "graph"])
def test_whole_requests_on_a_gpu(tmp_path: Path, level: str) -> None:
    root = tiny_project.project(tmp_path)
    session = Session(tiny_project.session_at(root).folders, device="cuda", dtype="float16")
    control = ControlChoice(name="edges", image=root / "photo.png")
    for request in (options(), options(controls=(control,)), options(prompt="a dog")):
        eager = list(generate(request, session))[0].image
        fast = list(generate(options(**vars(request) | {"stable_fast": level}), session))[0].image
        assert difference(eager, fast)[0] >= 30
    report = session.stable_fast_report
    assert report is not None and [part.level for part in report.parts.values()] == [level] * 4
    assert report.parts["VAE decoder"].counters.captures == 1
