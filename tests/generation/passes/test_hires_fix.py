"""HiresFix: the second pass has its own size, settings and upscaler, and keeps the picture and the mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modules.core.errors import ModelFileError
from modules.gallery.picture import Picture
from modules.generation.metadata.write import from_parameters
from modules.generation.options import GenerationOptions, HiresOptions, InitImage
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.images.convert import to_tensor
from modules.images.resize import resize_image
from tests.generation.test_text_to_image import make, pixels
from tests.upscalers import esrgan_tensors


@pytest.mark.parametrize("method", ["lanczos", "bislerp", "nearest-exact", "bicubic-antialiased"])
def test_size_and_reproduction(session: Session, method: str) -> None:
    picture = make(session, hires=HiresOptions(method=method, steps=2))[0]
    assert picture.image.size == (128, 144)
    again = list(generate(from_parameters(picture.parameters), session))[0]
    assert (pixels(again) == pixels(picture)).all()


def test_denoise_zero_only_enlarges(session: Session) -> None:
    first, second = make(session, hires=HiresOptions(denoise=0.0, keep_first_pass=True))
    plain = first.image.resize((128, 144), Image.Resampling.LANCZOS)
    model = session.model(GenerationOptions(prompt="x"))
    expected = model.vae.decode(model.vae.encode(to_tensor(plain))).clamp(-1, 1)
    assert np.abs(pixels(second) - (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 1


def test_the_kept_first_pass_is_the_picture_without_hires(session: Session) -> None:
    first, _ = make(session, hires=HiresOptions(steps=1, keep_first_pass=True))
    plain = make(session)[0]
    assert (pixels(first) == pixels(plain)).all() and first.parameters == plain.parameters


def test_own_settings_are_used(session: Session) -> None:
    phases: list[tuple[str, int]] = []
    list(
        generate(
            GenerationOptions(
                prompt="a",
                width=64,
                height=64,
                seed=1,
                steps=2,
                hires=HiresOptions(steps=5, sampler="heun", cfg=1.0),
            ),
            session,
            on_progress=lambda e: phases.append((e.phase, e.steps)),
        )
    )
    assert ("sampling", 2) in phases and ("hires", 5) in phases


def test_an_unknown_upscaler_is_reported_before_any_step(session: Session) -> None:
    phases: list[str] = []
    request = GenerationOptions(prompt="a", width=64, height=64, steps=1, hires=HiresOptions(method="none-such"))
    with pytest.raises(ModelFileError, match="none-such"):
        list(generate(request, session, on_progress=lambda event: phases.append(event.phase)))
    assert phases == []


def test_an_upscaler_file_enlarges_the_first_pass(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(esrgan_tensors(), tmp_path / "4x my upscaler.pth")
    monkeypatch.chdir(tmp_path)
    hires = HiresOptions(method="./4x my upscaler.pth", denoise=0.0, keep_first_pass=True, scale=1.5)
    first, second = make(session, hires=hires)
    large = session.upscaler("./4x my upscaler.pth")(first.image)
    assert large.size == (256, 288) and second.image.size == (96, 112)
    vae = session.model(GenerationOptions(prompt="x")).vae
    shrunk = to_tensor(large.resize((96, 112), Image.Resampling.LANCZOS))
    expected = vae.decode(vae.encode(shrunk)).clamp(-1, 1)
    assert np.abs(pixels(second) - (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 1
    again = list(generate(from_parameters(second.parameters), session))[-1]
    assert (pixels(again) == pixels(second)).all()


@pytest.mark.parametrize("content", [b"", b"no upscaler", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_upscaler_is_reported_before_any_step(session: Session, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    phases: list[str] = []
    request = GenerationOptions(prompt="a", steps=1, hires=HiresOptions(method=str(tmp_path / "bad.pth")))
    with pytest.raises(ModelFileError, match="bad.pth"):
        list(generate(request, session, on_progress=lambda event: phases.append(event.phase)))
    assert phases == []


def test_a_separate_scheduler_may_be_given_by_its_label(session: Session) -> None:
    pictures = [make(session, hires=HiresOptions(steps=3, scheduler=name))[0] for name in ("Simple", "simple", None)]
    assert (pixels(pictures[0]) == pixels(pictures[1])).all()
    assert (pixels(pictures[0]) != pixels(pictures[2])).any()


def test_the_mask_holds_in_the_second_pass(session: Session, photo: Path, mask: Path) -> None:
    init = InitImage(image=photo, mask=mask, mask_blur=0)
    picture: Picture = make(session, init=init, hires=HiresOptions(steps=2))[0]
    enlarged = np.asarray(Image.open(photo).resize((128, 144), Image.Resampling.LANCZOS), dtype=np.float64)
    assert np.abs(pixels(picture)[:, :54] - enlarged[:, :54]).max() <= 1


@pytest.mark.parametrize("method", ["lanczos", "4x my upscaler.pth"])
def test_the_second_pass_of_a_finished_first_one_is_that_of_hires_fix(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    torch.save(esrgan_tensors(), tmp_path / "4x my upscaler.pth")
    monkeypatch.chdir(tmp_path)
    hires = HiresOptions(method=f"./{method}" if method.endswith("pth") else method, denoise=0.6, steps=3)
    first, second = make(session, hires=replace(hires, keep_first_pass=True))
    first.image.save("first.png")
    start = InitImage(image=tmp_path / "first.png", denoise=0.0)
    (later,) = make(session, init=start, hires=hires)
    assert (pixels(later) == pixels(second)).all()
    assert f"Hires upscaler: {method}" in later.parameters and "Denoising strength: 0.6" in later.parameters
    (again,) = generate(from_parameters(later.parameters, places=[tmp_path]), session)
    assert (pixels(again) == pixels(later)).all()


def test_an_upscaler_for_latents_gets_the_encoded_picture(session: Session, photo: Path) -> None:
    start, hires = InitImage(image=photo, denoise=0.0), HiresOptions(method="bilinear", denoise=0.0)
    pictures = make(session, init=start, hires=hires, batch=2)
    vae = session.model(GenerationOptions(prompt="x")).vae
    latent = vae.encode(to_tensor(resize_image(Image.open(photo).convert("RGB"), 64, 72, "crop")))
    expected = vae.decode(F.interpolate(latent, (18, 16), mode="bilinear", align_corners=False)).clamp(-1, 1)
    for picture in pictures:
        assert np.abs(pixels(picture) - (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 1
