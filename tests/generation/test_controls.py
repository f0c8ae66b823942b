"""ControlNets in whole requests: timing, strength and mode, at every size and batch, and bad files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import pipeline
from modules.controlnet.apply import AppliedControl
from modules.core import paths
from modules.core.errors import ModelFileError, OptionsError
from modules.gallery import output
from modules.generation.metadata.write import from_parameters
from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.models.t2i_adapter import AdapterConfig, T2IAdapter
from tests import tiny, tiny_project


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.project(tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return tiny_project.session_at(root)


@pytest.fixture
def control(root: Path) -> Callable[..., ControlChoice]:
    def make_choice(**changes: Any) -> ControlChoice:
        return ControlChoice(**{"name": "edges", "image": root / "photo.png", "strength": 1.0, **changes})

    return make_choice


def options(*controls: ControlChoice, **changes: Any) -> GenerationOptions:
    values: dict[str, Any] = {"prompt": "a cat", "width": 64, "height": 64, "steps": 4, "seed": 5, "cfg": 3.0}
    return GenerationOptions(**values | {"controls": controls} | changes)


def make(session: Session, *controls: ControlChoice, **changes: Any) -> Tensor:
    """Returns the clean latents [N, C, h, w] of the last step, which are finer than a picture's 8 bits."""
    latents: list[Tensor] = []

    def keep(event: Progress) -> None:
        if event.denoised is not None:
            latents.append(event.denoised.clone())

    list(generate(options(*controls, **changes), session, on_progress=keep))
    return latents[-1]


def distance(first: Tensor, second: Tensor) -> float:
    """Returns the distance relative to the norm of `second`."""
    return float((first - second).norm() / second.norm())


ROUNDING = 1e-5
VISIBLE = 1e-4  # random weights have little effect; equal requests are bit-identical


Control = Callable[..., ControlChoice]


def test_strength_zero_and_an_empty_range_are_absence(session: Session, control: Control) -> None:
    plain = make(session)
    assert torch.equal(make(session, control(strength=0.0)), plain)
    assert torch.equal(make(session, control(end=0.0)), plain)
    assert distance(make(session, control()), plain) > VISIBLE
    assert torch.equal(make(session), plain)


def test_the_stronger_the_further(session: Session, control: Control) -> None:
    plain = make(session)
    far = [distance(make(session, control(strength=strength)), plain) for strength in (0.02, 0.1, 0.5)]
    assert 0 < far[0] < far[1] < far[2]


class Calls:
    """Records the timestep and number of rows of each evaluation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[float, int, tuple[int, ...]]] = []
        original = AppliedControl.residuals

        def residuals(applied: AppliedControl, x: torch.Tensor, timestep: float, *rest: Any, **named: Any) -> Any:
            result = original(applied, x, timestep, *rest, **named)
            if result is not None:
                self.seen.append((timestep, x.shape[0], tuple(applied.hint.shape)))
            return result

        monkeypatch.setattr(AppliedControl, "residuals", residuals)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.0, 0.4), (0.4, 1.0), (0.3, 0.7)])
def test_start_and_end_are_shares_of_the_noise_levels(
    session: Session, control: Control, monkeypatch: pytest.MonkeyPatch, start: float, end: float
) -> None:
    calls = Calls(monkeypatch)
    make(session, control(start=start, end=end), steps=10, scheduler="normal", sampler="euler")
    times = [timestep for timestep, _, _ in calls.seen]
    expected = [t for t in np.linspace(999, 0, 10) if start <= 1 - t / 999 <= end]
    assert len(times) == len(expected) and np.abs(np.array(times) - expected).max() < 1


def test_early_and_late_halves_differ_from_each_other_and_the_whole(session: Session, control: Control) -> None:
    whole, early, late = (make(session, control(start=a, end=b)) for a, b in ((0.0, 1.0), (0.0, 0.5), (0.5, 1.0)))
    assert distance(whole, early) > VISIBLE and distance(whole, late) > VISIBLE and distance(early, late) > VISIBLE


def test_a_range_that_ends_before_it_starts_is_a_sentence(control: Control) -> None:
    with pytest.raises(OptionsError, match=r"start 0\.8.*end 0\.2"):
        control(start=0.8, end=0.2)


def test_modes_differ(session: Session, control: Control) -> None:
    balanced, prompt, strict = (make(session, control(mode=mode)) for mode in ("balanced", "prompt", "control"))
    assert min(distance(balanced, prompt), distance(prompt, strict), distance(balanced, strict)) > VISIBLE


@pytest.mark.parametrize("mode", ["balanced", "control"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_batches_equal_single_pictures(session: Session, control: Control, mode: str, cfg: float) -> None:
    together = make(session, control(mode=mode), cfg=cfg, batch=3)
    for position, latent in enumerate(together):
        alone = make(session, control(mode=mode), cfg=cfg, seed=5 + position)
        assert distance(latent, alone[0]) < ROUNDING


def test_without_guidance_the_mode_control_is_the_mode_prompt(session: Session, control: Control) -> None:
    """Checks equal layer weights when there is no unconditional half to skip."""
    strict, prompt = (make(session, control(mode=mode), cfg=1.0) for mode in ("control", "prompt"))
    assert torch.equal(strict, prompt)


def test_two_nets_add_up(session: Session, control: Control, root: Path) -> None:
    other = tiny_project.save_photo(root / "tall.png", 64, 128)
    one, two = control(), control(image=other, mode="control", end=0.6)
    both = make(session, one, two)
    assert distance(both, make(session, one)) > VISIBLE and distance(both, make(session, two)) > VISIBLE
    assert distance(make(session, two, one), both) < ROUNDING
    twice = make(session, control(strength=0.5), control(strength=0.5))
    assert distance(twice, make(session, control(strength=1.0))) < ROUNDING


@pytest.mark.parametrize("size", [(128, 128), (96, 72), (200, 104)])
def test_the_picture_is_fitted_again_for_the_second_pass(
    session: Session, control: Control, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    calls = Calls(monkeypatch)
    hires = HiresOptions(width=size[0], height=size[1], steps=2, denoise=0.6, method="bilinear")
    assert make(session, control(), hires=hires).shape[-2:] == (size[1] // 8, size[0] // 8)
    assert {hint[-2:] for _, _, hint in calls.seen} == {(64, 64), (size[1], size[0])}


def test_the_network_sees_the_picture(session: Session, control: Control, root: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(root / "white.png")
    Image.new("RGB", (64, 64), "black").save(root / "black.png")
    white, black = (make(session, control(image=root / f"{name}.png")) for name in ("white", "black"))
    assert distance(white, black) > VISIBLE


@pytest.mark.parametrize("kind", ["grey.png", "alpha.png", "palette.gif", "deep.png", "one.png", "depth.tif"])
def test_pictures_of_every_kind_are_taken(session: Session, control: Control, root: Path, kind: str) -> None:
    photo, path = Image.open(root / "photo.png"), root / kind
    deep = Image.fromarray(np.full((64, 64), 40_000, dtype=np.uint16))
    made = {
        "grey.png": photo.convert("L"),
        "alpha.png": photo.convert("RGBA"),
        "palette.gif": photo.convert("P"),
        "deep.png": deep,
        "one.png": Image.new("1", (1, 1), 1),
        "depth.tif": Image.fromarray(np.full((64, 64), 0.5, dtype=np.float32)),
    }
    made[kind].save(path)
    assert make(session, control(image=path), steps=1).isfinite().all()


def test_a_depth_map_of_floats_is_seen_as_bright_as_its_bytes(session: Session, control: Control, root: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.float32) / 63, (64, 1))
    Image.fromarray(ramp).save(root / "ramp.tif")
    Image.fromarray(np.rint(ramp * 255).astype(np.uint8)).save(root / "ramp.png")
    floats, whole = (make(session, control(image=root / f"ramp.{end}")) for end in ("tif", "png"))
    assert distance(floats, whole) == 0


def test_the_picture_is_made_again_from_its_text(session: Session, control: Control, root: Path) -> None:
    both = (control(mode="control", end=0.7), control(start=0.2, strength=0.1))
    everything: dict[str, Any] = {
        "loras": (LoraChoice(name="ink", strength=0.5),),
        "init": InitImage(image=root / "photo.png", denoise=0.8),
        "hires": HiresOptions(scale=1.5, steps=2, method="bislerp"),
        "prompt": "a (red:1.3) cat <lora:clay:0.4>",
        "negative_prompt": "dog",
        "batch": 2,
        "sampler": "dpmpp_sde",
    }
    picture = list(generate(options(*both, **everything), session))[1]
    make(session)
    again = list(generate(from_parameters(picture.parameters, places=[root]), session))
    assert len(again) == 1 and again[0].parameters == picture.parameters
    assert again[0].image.tobytes() == picture.image.tobytes()


def test_nets_are_loaded_once_and_go_with_the_checkpoint(session: Session, control: Control) -> None:
    make(session, control())
    model = session.model(GenerationOptions(prompt="x"))
    assert session.controlnet(model, "edges") is session.controlnet(model, "edges")


@pytest.fixture
def run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(paths, "PROJECT_ROOT", root)
    monkeypatch.setattr(output, "PROJECT_ROOT", tmp_path)

    def call(net: Path | str, image: Path, *arguments: str) -> tuple[int, str, str]:
        base = ["a cat", "64", "64", "1", "1", "--steps", "1", "--device", "cpu", "--quiet"]
        code = pipeline.main([*base, "--control-net", str(net), "--control-image", str(image), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def other_family(path: Path) -> None:
    tiny_project.save_controlnet(path, sd2=True)


def cut(path: Path) -> None:
    data = tiny_project.save_controlnet(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def with_a_hole(path: Path) -> None:
    tensors = load_file(tiny_project.save_controlnet(path))
    save_file({name: tensor for name, tensor in tensors.items() if "middle_block.1" not in name}, path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (other_family, ["SD2", "SD1"]),
        (cut, []),
        (with_a_hole, []),
        (lambda path: tiny_project.save_lora(path), ["LoRA"]),
        (lambda path: path.write_text("<html>404</html>"), []),
        (lambda path: path.mkdir(), []),
    ],
)
def test_bad_nets_are_one_sentence(
    run: Any, root: Path, tmp_path: Path, write: Callable[[Path], None], words: list[str]
) -> None:
    path = tmp_path / "bad.safetensors"
    write(path)
    code, out, err = run(path, root / "photo.png")
    assert code == ModelFileError.exit_code and out == "" and err.count("\n") == 1 and err.startswith("error: "), err
    assert all(word in err for word in ["bad.safetensors", *words]), err


@pytest.mark.parametrize("data", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"0" * 40])
def test_pictures_that_cannot_be_read_are_one_sentence(run: Any, tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "hint.png"
    if data is not None:
        path.write_bytes(data)
    code, out, err = run("edges", path)
    assert code == OptionsError.exit_code and out == "" and "hint.png" in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    "arguments", [["--control-range", "0.8:0.2"], ["--control-range", "x"], ["--control-strength", "-1"]]
)
def test_senseless_settings_are_one_sentence(run: Any, root: Path, arguments: list[str]) -> None:
    code, out, err = run("edges", root / "photo.png", *arguments)
    assert code == OptionsError.exit_code and out == "" and err.count("\n") == 1, err


@pytest.fixture(scope="module")
def adapter(root: Path) -> str:
    network = T2IAdapter(AdapterConfig(channels=tiny.SD1_UNET.channels, halved=(False, True, True, True)))
    weights = {f"adapter.{name}": tensor for name, tensor in tiny.randomise(network).state_dict().items()}
    save_file(weights, root / "models" / "controlnet" / "adapter.safetensors")
    return "adapter"


@pytest.mark.parametrize("level", ["off", pytest.param("full", marks=pytest.mark.slow)])
def test_an_adapter_steers_alone_and_with_a_controlnet(
    session: Session, control: Control, adapter: str, level: str
) -> None:
    """It is evaluated once per picture, and Stable-Fast makes the same picture."""
    plain, net = make(session), make(session, control())
    alone = make(session, control(name=adapter, end=0.6), stable_fast=level)
    both = make(session, control(name=adapter), control(), stable_fast=level)
    assert distance(alone, plain) > VISIBLE and distance(both, net) > VISIBLE and distance(both, alone) > VISIBLE
    assert distance(alone, make(session, control(name=adapter, end=0.6))) < ROUNDING
    assert distance(both, make(session, control(name=adapter), control())) < ROUNDING
    assert torch.equal(make(session, control(name=adapter, strength=0.0)), plain)


def test_an_adapter_is_evaluated_once_per_picture(
    session: Session, control: Control, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    original = T2IAdapter.forward
    monkeypatch.setattr(T2IAdapter, "forward", lambda net, hint: calls.append(hint.shape) or original(net, hint))
    make(session, control(name=adapter))
    assert calls == [(1, 3, 64, 64)]


def test_an_adapter_knows_one_mode(session: Session, control: Control, adapter: str) -> None:
    with pytest.raises(OptionsError, match="T2I-Adapter, which only works in the ControlNet mode balanced"):
        make(session, control(name=adapter, mode="prompt"))


@pytest.fixture(scope="module")
def union(root: Path) -> str:
    tiny_project.save_union(root / "models" / "controlnet" / "union.safetensors")
    return "union"


def test_union_kinds_make_different_pictures(session: Session, control: Control, union: str) -> None:
    depth, pose, hed, scribble = (
        make(session, control(name=union, kind=kind)) for kind in ("depth", "openpose", "hed", "scribble")
    )
    assert distance(depth, pose) > VISIBLE and torch.equal(hed, scribble)
    both = make(session, control(name=union, kind="depth"), control(name=union, kind="openpose"))
    assert distance(both, depth) > VISIBLE and distance(both, pose) > VISIBLE


@pytest.mark.slow
def test_union_kinds_are_the_same_under_stable_fast(session: Session, control: Control, union: str) -> None:
    for kind in ("depth", "openpose"):
        fast = make(session, control(name=union, kind=kind), stable_fast="full")
        assert distance(fast, make(session, control(name=union, kind=kind))) < ROUNDING


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("union", None, r"union ControlNet: choose its control kind from openpose, .*lineart, normal, segment\."),
        ("union", "tile", "union ControlNet: choose its control kind"),
        ("edges", "depth", "not a union ControlNet: leave out its control kind depth"),
    ],
)
def test_only_union_files_take_a_kind(
    session: Session, control: Control, union: str, name: str, kind: str | None, words: str
) -> None:
    with pytest.raises(OptionsError, match=words):
        make(session, control(name=name, kind=kind))
