"""Stable-Fast in whole requests: common changes need no new trace, and memory is freed."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.core.errors import OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.stable_fast import Report
from modules.stable_fast.config import DISABLE_VARIABLE
from modules.tasks.compare import compare
from tests import tiny, tiny_project
from tests.generation.test_together import VARIED, Told, assert_as_alone
from tests.stable_fast.store.table_files import table

ROUNDING = 2e-5  # float32 sums in another order; see tests/whole/test_with_and_without_stable_fast.py


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("fast"))


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return tiny_project.session_at(root)


def options(**changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 5, "cfg": 3.0}
    return GenerationOptions(**values | changes)


def latents(session: Session, request: GenerationOptions) -> Tensor:
    """The clean latents of the last step."""
    kept: list[Tensor] = []

    def keep(event: Progress) -> None:
        if event.denoised is not None:
            kept.append(event.denoised.clone())

    list(generate(request, session, on_progress=keep))
    return kept[-1]


def report(session: Session) -> Report:
    found = session.stable_fast_report
    assert found is not None
    return found


def assert_same_as_eager(session: Session, level: str = "full", **changes: Any) -> None:
    eager = latents(session, options(**changes))
    fast = latents(session, options(**changes, stable_fast=level))
    assert (fast - eager).abs().max() <= ROUNDING * eager.abs().max()


def traces(session: Session) -> int:
    found = session.stable_fast_report
    return found.counters.traces if found else 0


@pytest.fixture(scope="module")
def warm(session: Session) -> Session:
    """A session compiled for its first size; later requests must make do with that."""
    assert_same_as_eager(session)
    assert traces(session) == 1 and report(session).counters.eager_steps == 0
    return session


def test_sizes_there_and_back_are_not_traced_again(warm: Session) -> None:
    sizes = [(64, 64), (128, 64), (64, 192), (128, 128)]
    for width, height in [*sizes, *reversed(sizes)]:
        assert_same_as_eager(warm, width=width, height=height)
    assert traces(warm) == 1


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_batches_are_not_traced_again(warm: Session, batch: int) -> None:
    assert_same_as_eager(warm, batch=batch)
    assert traces(warm) == 1


def test_several_requests_in_one_batch_are_not_traced_again(warm: Session) -> None:
    told = Told([options(**each, stable_fast="full") for each in VARIED]).run(warm)
    assert_as_alone(told, warm)
    assert traces(warm) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"cfg": 1.0},
        {"cfg": 1.0, "batch": 2},
        {"sampler": "euler_cfg_pp", "cfg": 1.0},
        {"prompt": "a " + "very " * 90 + "long prompt"},
        {"prompt": "", "negative_prompt": "BREAK".join("abc")},
        {"clip_skip": 2, "emphasis": "a1111"},
        {"steps": 5, "scheduler": "normal"},
        {"hires": HiresOptions(scale=2.0, steps=2, method="bislerp")},  # lanczos would round to 8 bits in between
    ],
)
def test_what_people_change_is_not_traced_again(warm: Session, changes: dict[str, Any]) -> None:
    assert_same_as_eager(warm, **changes)
    assert traces(warm) == 1


def test_loras_come_and_go_without_a_trace(warm: Session) -> None:
    ink, clay = LoraChoice(name="ink", strength=0.8), LoraChoice(name="clay", strength=-0.5)
    plain = latents(warm, options(stable_fast="full"))
    for loras in ((ink,), (ink, clay), (), (clay,), (replace(ink, strength=0.3),)):
        assert_same_as_eager(warm, loras=loras)
    assert torch.equal(latents(warm, options(stable_fast="full")), plain)
    assert traces(warm) == 1


def test_a_lora_changed_while_stable_fast_was_off_is_seen(warm: Session) -> None:
    """The compiled weights follow the network's weights, whoever changed them."""
    ink = LoraChoice(name="ink", strength=0.8)
    with_it = latents(warm, options(stable_fast="full", loras=(ink,)))
    latents(warm, options())
    assert torch.equal(latents(warm, options(stable_fast="full", loras=(ink,))), with_it)


def test_the_same_request_twice_is_the_same_bits(warm: Session) -> None:
    assert torch.equal(latents(warm, options(stable_fast="full")), latents(warm, options(stable_fast="full")))


def test_sizes_that_do_not_halve_thrice_work_too(warm: Session) -> None:
    """72 pixels are 9 latent cells. Such a size needs a separate trace, but only once."""
    before = traces(warm)
    for _ in range(2):
        assert_same_as_eager(warm, width=72, height=104)
    assert traces(warm) == before + 1
    assert_same_as_eager(warm, width=72, height=104, batch=2)
    assert traces(warm) == before + 1 and report(warm).counters.eager_steps == 0


def test_hires_fix_to_an_odd_size(warm: Session) -> None:
    before = traces(warm)
    assert_same_as_eager(warm, hires=HiresOptions(width=104, height=72, steps=2, method="bicubic"))
    assert traces(warm) <= before + 1


def test_a_controlnet_is_one_more_form_of_call(warm: Session, root: Path) -> None:
    before = traces(warm)
    control = ControlChoice(name="edges", image=root / "photo.png", end=0.5)
    for changes in ({}, {"width": 128}, {"batch": 2}, {"cfg": 1.0}, {"init": InitImage(image=root / "photo.png")}):
        assert_same_as_eager(warm, controls=(replace(control, mode="control"),), **changes)
    assert traces(warm) == before + 1


@pytest.mark.parametrize(("asked", "in_force"), [("graph", "off"), ("fused", "fused"), ("full", "fused")])
def test_each_level_makes_the_picture_and_says_what_it_does(root: Path, asked: str, in_force: str) -> None:
    """Graphs are skipped without a GPU, and the report gives the reason."""
    session = tiny_project.session_at(root)
    assert_same_as_eager(session, level=asked)
    found = report(session)
    assert (found.asked, found.level) == (asked, in_force)
    assert (asked == in_force) == (found.reason == "")
    assert (found.counters.fused_steps > 0) == (in_force == "fused")


@pytest.mark.parametrize("value", ["off", " OFF ", "0", "false", "No"])
def test_the_environment_can_switch_it_off(root: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, value)
    session = tiny_project.session_at(root)
    assert torch.equal(latents(session, options(stable_fast="full")), latents(session, options()))
    found = report(session)
    assert found.level == "off" and DISABLE_VARIABLE in found.status_line()
    assert found.counters.traces == 0 and found.counters.fused_steps == 0


def test_an_unknown_word_in_the_environment_is_told_before_anything_is_loaded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "on")
    session = tiny_project.session_at(root)
    monkeypatch.setattr(session, "model", lambda _: pytest.fail("the checkpoint was loaded"))
    for make in (generate, compare):
        with pytest.raises(OptionsError, match=DISABLE_VARIABLE):
            list(make(options(stable_fast="full"), session))  # type: ignore[call-overload]


def test_the_environments_share_in_a_lower_level_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, the level would be "fused" here; with it, the lack of a GPU leaves "off"."""
    monkeypatch.setenv(DISABLE_VARIABLE, "graph")
    session = tiny_project.session_at(root)
    latents(session, options(stable_fast="full"))
    assert f"off instead of full ({DISABLE_VARIABLE}=graph; CUDA graphs need" in report(session).status_line()


@pytest.mark.parametrize(
    ("asked", "most", "told"),
    [("graph", "", ["graph"]), ("full", "graph", ["graph"]), ("full", "", []), ("fused", "", []), ("off", "", [])],
)
def test_options_for_kernels_at_a_level_without_fused_operations_are_told_to_have_no_effect(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: str,
    most: str,
    told: list[str],
) -> None:
    session = Session(ModelFolders(root), device="cpu", tuning_seconds=10.0, table=table())
    caplog.clear()
    monkeypatch.setenv(DISABLE_VARIABLE, most)
    model = session.model(options())
    session.device = torch.device("cuda")  # a device with tuning; nothing is run
    for _ in range(2):
        session.networks(model, asked)
    assert [record.message for record in caplog.records] == [
        f"--stable-fast-{name} has no effect at level {level}: there are no fused operations to time."
        for level in told
        for name in ("tune", "table")
    ]


def test_another_checkpoint_frees_everything_of_the_first(tmp_path: Path) -> None:
    root = tiny_project.project(tmp_path)
    tiny.save_checkpoint(root / "models" / "checkpoints" / "other.safetensors", seed=9)
    session = tiny_project.session_at(root)
    first = options(
        checkpoint="tiny",
        stable_fast="full",
        loras=(LoraChoice(name="ink"),),
        controls=(ControlChoice(name="edges", image=root / "photo.png"),),
    )
    before = latents(session, first)
    gone = traced_objects(session, first)
    latents(session, options(checkpoint="other"))
    gc.collect()
    assert [name for name, reference in gone.items() if reference() is not None] == []
    assert session.stable_fast_report is None
    assert torch.equal(latents(session, first), before)


def traced_objects(session: Session, request: GenerationOptions) -> dict[str, weakref.ref[Any]]:
    """Weak references to the objects of one checkpoint; the test keeps none of them alive."""
    model = session.model(request)
    wrapper = session.networks(model, "full").unet(model.unet).unet_function_wrapper
    assert wrapper is not None
    objects: dict[str, Any] = {
        "UNet": model.unet.module,
        "text encoder": model.text.module,
        "VAE": model.vae,
        "ControlNet": session.controlnet(model, "edges"),
        "a weight": next(model.unet.module.parameters()),
        "runner": wrapper(model.unet.module),
    }
    return {name: weakref.ref(thing) for name, thing in objects.items()}


def test_another_level_frees_the_first_and_stops_listening(root: Path) -> None:
    session = tiny_project.session_at(root)
    latents(session, options(stable_fast="fused"))
    model = session.model(options())
    wrapper = session.networks(model, "fused").unet(model.unet).unet_function_wrapper
    assert wrapper is not None
    runner = weakref.ref(wrapper(model.unet.module))
    del wrapper
    latents(session, options(stable_fast="graph"))
    gc.collect()
    assert runner() is None and len(model.unet.on_weights_changed) == 1
    session.free()
    assert model.unet.on_weights_changed == []


def test_inpainting_checkpoints(tmp_path: Path) -> None:
    root = tiny_project.project(tmp_path)
    tensors = tiny.checkpoint_tensors()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[name] = torch.cat([tensors[name], torch.randn(64, 5, 3, 3).half() / 7], dim=1)
    save_file(tensors, root / "models" / "checkpoints" / "tiny.safetensors")
    session = tiny_project.session_at(root)
    for changes in ({}, {"init": InitImage(image=root / "photo.png", mask=root / "photo.png")}):
        assert_same_as_eager(session, batch=2, **changes)
    assert traces(session) == 1 and report(session).counters.eager_steps == 0
