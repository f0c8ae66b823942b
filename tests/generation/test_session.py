"""Tests what a session keeps between requests, reloads, and releases."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import KINDS, ModelFolders
from modules.generation.checks.model_files import checkpoint_path, text_encoder_paths
from modules.generation.job import prepare_job
from modules.generation.latents import decode_latents
from modules.generation.options import GenerationOptions, InitImage, LoraChoice
from modules.generation.session import Session, how_fast, tell_rescale
from modules.models.unet import UNet
from modules.text.encode import encode_groups
from tests import tiny, tiny_project
from tests.generation.test_text_to_image import make, options, pixels

REQUEST = GenerationOptions(prompt="a cat")
FAST = replace(REQUEST, stable_fast="fused")
HALF = "fp16-accumulate"


def test_no_checkpoint_at_all_is_a_sentence(model_root: Any) -> None:
    with pytest.raises(ModelFileError, match="no checkpoint"):
        make(Session(ModelFolders(model_root), device="cpu"))


def test_a_checkpoint_that_was_replaced_is_loaded_again(tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / "models" / kind).mkdir(parents=True)
    path = tiny.save_checkpoint(tmp_path / "models" / "checkpoints" / "mine.safetensors", seed=0)
    own = Session(ModelFolders(tmp_path), device="cpu")
    first = make(own)[0]
    path.unlink()
    tiny.save_checkpoint(path, seed=9)
    os.utime(path, ns=(1, 1))
    assert (pixels(make(own)[0]) != pixels(first)).any()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return tiny_project.session_at(tiny_project.project(tmp_path_factory.mktemp("session")))


def test_asking_again_costs_nothing(project: Session) -> None:
    model = project.model(REQUEST)
    assert project.model(GenerationOptions(prompt="a dog", checkpoint="tiny")) is model
    assert project.controlnet(model, "edges") is project.controlnet(model, "edges")
    assert project.networks(model, "fused") is project.networks(model, "fused")


def test_freeing_lets_everything_go(project: Session) -> None:
    model = project.model(REQUEST)
    net, fast = project.controlnet(model, "edges"), project.networks(model, "fused")
    project.free()
    assert project.stable_fast_report is None
    again = project.model(REQUEST)
    assert again is not model
    assert project.controlnet(again, "edges") is not net and project.networks(again, "fused") is not fast


def test_loras_are_merged_and_taken_out_bit_for_bit(project: Session) -> None:
    model = project.model(REQUEST)

    def weights() -> list[bytes]:
        return [parameter.numpy().tobytes() for parameter in model.unet.module.parameters()]

    before = weights()
    project.patched(model, [LoraChoice(name="ink", strength=0.5)])
    merged = weights()
    project.patched(model, [])
    assert weights() == before != merged


def test_a_text_encoder_may_be_named_by_its_checkpoint(project: Session) -> None:
    named = GenerationOptions(prompt="x", text_encoders=("tiny",))
    assert text_encoder_paths(project.folders, named) == [checkpoint_path(project.folders, "tiny")]
    with pytest.raises(ModelFileError, match="none-such"):
        text_encoder_paths(project.folders, GenerationOptions(prompt="x", text_encoders=("none-such",)))
    with pytest.raises(OptionsError, match="one text encoder"):
        project.model(GenerationOptions(prompt="x", text_encoders=("tiny", "tiny")))


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"prediction": "v", "zero_terminal_snr": True}, {}, True),
        ({"prediction": "v", "zero_terminal_snr": True}, {"rescale_cfg": 0.5}, False),
        ({"prediction": "v", "zero_terminal_snr": True}, {"cfg": 1.0}, False),
        ({"prediction": "v", "zero_terminal_snr": False}, {}, False),
        ({}, {}, False),
    ],
)
def test_rescaled_guidance_is_offered_where_it_helps(
    project: Session,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    options: dict[str, float],
    told: bool,
) -> None:
    spec = replace(project.model(REQUEST).spec, **changes)
    tell_rescale(replace(REQUEST, **options), spec)
    assert ("--rescale-cfg 0.7" in caplog.text) == told


def test_memory_has_no_effect_without_an_nvidia_gpu_and_says_so(
    project: Session, caplog: pytest.LogCaptureFixture
) -> None:
    for memory, lines in (("low", 1), ("high", 1), ("auto", 0), (None, 0)):
        caplog.clear()
        session = Session(project.folders, device="cpu", memory=memory)
        assert caplog.messages == ["--memory has no effect on cpu: it is about the memory of an NVIDIA GPU."] * lines
        assert not session.make_room()
    assert project.model(REQUEST).away == ()


def test_another_precision_starts_over_and_one_without_stable_fast_is_told(
    project: Session, caplog: pytest.LogCaptureFixture
) -> None:
    project.free()
    model = project.model(REQUEST)
    off, half = (project.networks(model, *how_fast(each)) for each in (FAST, replace(FAST, stable_fast_precision=HALF)))
    assert (off.precision, half.precision) == ("off", HALF) and off is not half
    assert project.networks(model, "fused", HALF) is half and caplog.messages == []
    half.unet(model.unet)
    assert half.report and half.report.precision == HALF
    project.networks(model, *how_fast(replace(REQUEST, stable_fast_precision=HALF)))
    assert caplog.messages == ["--stable-fast-precision has no effect without Stable-Fast: give --stable-fast too."]
    project.free()


def test_known_prompts_need_no_text_encoder(project: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    project.free()
    encoded: list[tuple[str, ...]] = []

    def spy(model: Any, config: Any, groups: list[tuple[str, ...]], **how: Any) -> Any:
        encoded.extend(groups)
        return encode_groups(model, config, groups, **how)

    monkeypatch.setattr("modules.generation.encode_prompts.encode_groups", spy)
    ink = LoraChoice(name="ink", strength=0.5, text_strength=0.5)
    first = pixels(make(project, steps=1)[0])
    changes: list[dict[str, Any]] = [{}, {"seed": 9}, {"loras": (ink,)}, {"loras": (ink,)}, {"clip_skip": 2}]
    changes += [{"emphasis": "a1111"}, {"prompt": "a dog"}, {"stable_fast": "fused"}, {"cfg": 2.0}, {}]
    counts = [len(encoded) for change in changes if prepare_job(options(**change), project)]
    assert counts == [1, 1, 2, 2, 3, 4, 5, 6, 6, 6]
    assert (pixels(make(project, steps=1)[0]) == first).all(), "the LoRA of another request is not in it"
    project.free()
    prepare_job(options(), project)
    assert len(encoded) == 7


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, project: Session) -> Iterator[None]:
    """Text encoder and VAE count as absent from the device, and visit it to work."""
    project.free()
    for place in ("visit", "checkpoint"):
        monkeypatch.setattr(f"modules.loader.{place}.is_away", lambda network, device: not isinstance(network, UNet))
    yield
    project.free()


def test_networks_that_leave_the_device_make_the_same_pictures(
    project: Session, request: pytest.FixtureRequest
) -> None:
    ink = LoraChoice(name="ink", strength=0.5, text_strength=0.8)
    photo = InitImage(image=project.folders.root / "photo.png")
    changes: list[dict[str, Any]] = [{}, {"loras": (ink,), "prompt": "a dog"}, {"loras": (ink,), "init": photo}]
    project.free()
    expected = [pixels(make(project, **change)[0]) for change in changes]
    request.getfixturevalue("away")
    model = project.model(REQUEST)
    assert model.away == ("text encoder", "VAE")
    weights = {**dict(model.text.module.named_parameters()), **dict(model.vae.named_parameters())}
    at_home = {name: (weight.data_ptr(), weight.clone()) for name, weight in weights.items()}
    for change, picture in zip(changes, expected, strict=True):
        assert (pixels(make(project, **change)[0]) == picture).all()
    assert all(at_home[name][0] == weight.data_ptr() for name, weight in weights.items())
    assert all(torch.equal(at_home[name][1], weight) for name, weight in weights.items())


@pytest.mark.usefixtures("away")
def test_networks_that_leave_the_device_are_not_compiled(project: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "modules.generation.networks.WORTH_IT_ON_CPU", ("VAE decoder", "VAE encoder", "text encoder", "ControlNet")
    )
    model = project.model(REQUEST)
    networks = project.networks(model, "full")
    assert (networks.decode, networks.encode) == (model.vae.decode, model.vae.encode)
    assert networks.texts == dict(model.text.module.named_children())
    networks.controlnet(project.controlnet(model, "edges"))
    assert list(networks._parts) == ["ControlNet 1"]


def test_when_memory_runs_out_text_encoder_and_vae_leave_and_the_batch_goes_on(
    project: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project.free()
    wanted: dict[str, Any] = {"number": 2, "batch": 2, "loras": (LoraChoice(name="ink"),), "steps": 1}
    expected = [pixels(picture) for picture in make(project, **wanted)]
    monkeypatch.setattr(project, "_memory", "auto")
    decoded: list[int] = []

    def full_at_the_second(vae: Any, latents: Any, run: Any) -> Any:
        decoded.append(1)
        if len(decoded) == 2:
            raise torch.OutOfMemoryError("pretended")
        return decode_latents(vae, latents, run)

    monkeypatch.setattr("modules.generation.job.decode_latents", full_at_the_second)
    pictures = make(project, **wanted)
    assert [picture.seed for picture in pictures] == [5, 6, 7, 8]
    assert all((pixels(a) == b).all() for a, b in zip(pictures, expected, strict=True))
    assert len(decoded) == 6, "the batch of the failure is made again"
    assert len(caplog.messages) == 1 and "at work" in caplog.text
    assert project.model(REQUEST).unet.patch_device.type == "cpu"
    project.free()


def test_after_text_encoder_and_vae_have_left_what_was_compiled_is_freed(
    project: Session, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    request.getfixturevalue("away")
    monkeypatch.setattr(project, "_memory", "low")
    networks = project.networks(project.model(REQUEST), "full")
    assert project.make_room() and "compiled again" in caplog.text
    assert project.networks(project.model(REQUEST), "full") is not networks
    project._release_fast()
    assert not project.make_room(), "there is no more room to make"


def test_the_type_of_a_vae_that_overflowed_is_remembered(project: Session) -> None:
    project.free()
    project.model(REQUEST).vae.to(torch.bfloat16)
    project.free()
    assert next(project.model(REQUEST).vae.parameters()).dtype == torch.bfloat16
    project._vae_dtypes.clear()
    project.free()
