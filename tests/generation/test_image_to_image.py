"""Image to image and inpainting: the picture is used, the mask is kept, and errors name bad files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from modules.core.errors import OptionsError
from modules.core.paths import KINDS, ModelFolders
from modules.generation.image_to_image import fill_masked, fit, inpaint_channels, open_source
from modules.generation.latents import encode_pictures
from modules.generation.options import GenerationOptions, InitImage
from modules.generation.session import Session
from modules.images.convert import to_tensor
from tests import tiny
from tests.generation.test_text_to_image import make, pixels


def test_denoise_zero_returns_the_picture_through_the_autoencoder(session: Session, photo: Path) -> None:
    picture = make(session, init=InitImage(image=photo, denoise=0.0))[0]
    vae = session.model(GenerationOptions(prompt="x")).vae
    expected = vae.decode(vae.encode(to_tensor(Image.open(photo)))).clamp(-1, 1)
    assert np.abs(pixels(picture) - (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 1


def test_the_more_denoise_the_further_from_the_picture(session: Session, photo: Path) -> None:
    kept = pixels(make(session, init=InitImage(image=photo, denoise=0.0))[0])
    far = [np.abs(pixels(make(session, init=InitImage(image=photo, denoise=d))[0]) - kept).mean() for d in (0.2, 0.9)]
    assert 0 < far[0] < far[1]


@pytest.mark.parametrize("content", ["original", "fill", "noise", "empty"])
def test_outside_the_mask_nothing_changes(session: Session, photo: Path, mask: Path, content: str) -> None:
    init = InitImage(image=photo, mask=mask, mask_blur=0, denoise=0.9, mask_content=content)
    picture = pixels(make(session, init=init)[0])
    original = np.asarray(Image.open(photo), dtype=np.float64)
    assert (picture[:, :32] == original[:, :32]).all()
    assert np.abs(picture[:, 32:] - original[:, 32:]).mean() > 5


def test_batch_members_equal_single_pictures_with_noise_under_the_mask(
    session: Session, photo: Path, mask: Path
) -> None:
    init = InitImage(image=photo, mask=mask, mask_content="noise")
    together = make(session, init=init, batch=2)
    alone = make(session, init=init, seed=together[1].seed)[0]
    assert np.abs(pixels(together[1]) - pixels(alone)).max() <= 1


def test_filling_takes_colours_from_around_the_mask() -> None:
    picture = Image.new("RGB", (64, 64), (200, 40, 40))
    ImageDraw.Draw(picture).rectangle((20, 20, 40, 40), fill=(0, 0, 255))
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((18, 18, 42, 42), fill=255)
    filled = np.asarray(fill_masked(picture, mask), dtype=int)
    assert np.abs(filled - [200, 40, 40]).max() < 12


def test_a_sideways_photo_is_turned_upright(session: Session, tmp_path: Path, photo: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # must be rotated by 90 degrees
    upright = Image.open(photo)
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    source = open_source(InitImage(image=tmp_path / "turned.png"))
    assert source.image.size == (64, 72)
    assert np.abs(np.asarray(source.image, dtype=int) - np.asarray(upright, dtype=int)).max() == 0


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: p.write_text("no picture"), "picture"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40), "picture"),
        (lambda p: None, "does not exist"),
    ],
)
def test_unreadable_pictures_are_sentences(session: Session, tmp_path: Path, write: Any, words: str) -> None:
    path = tmp_path / "broken.png"
    write(path)
    with pytest.raises(OptionsError, match=words):
        make(session, init=InitImage(image=path))


def test_a_mask_of_another_size_is_a_sentence(session: Session, photo: Path, tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "small.png")
    with pytest.raises(OptionsError, match="32x32.*64x72"):
        make(session, init=InitImage(image=photo, mask=tmp_path / "small.png"))


def test_inpainting_checkpoints_get_mask_and_masked_picture(tmp_path: Path, photo: Path, mask: Path) -> None:
    for kind in KINDS:
        (tmp_path / "models" / kind).mkdir(parents=True)
    tensors = tiny.checkpoint_tensors()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[name] = torch.cat([tensors[name], torch.randn(64, 5, 3, 3).half() / 7], dim=1)
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "models" / "checkpoints" / "inpaint.safetensors")
    session = Session(ModelFolders(tmp_path), device="cpu")
    model = session.model(GenerationOptions(prompt="x"))
    assert model.spec.inpaint
    start = fit(
        open_source(InitImage(image=photo, mask=mask, mask_blur=0)), partial(encode_pictures, model.vae), 64, 72
    )
    channels = inpaint_channels(partial(encode_pictures, model.vae), start, 64, 72)
    picture = to_tensor(Image.open(photo))
    picture[..., 32:] = 0.0
    assert channels.shape == (1, 5, 9, 8)
    assert torch.equal(channels[:, 0, :, :4], torch.zeros(1, 9, 4)) and bool((channels[:, 0, :, 4:] == 1).all())
    assert torch.allclose(channels[:, 1:], encode_pictures(model.vae, picture), atol=1e-5)
    inits = (None, InitImage(image=photo), *(InitImage(image=photo, mask=mask, only_masked=o) for o in (False, True)))
    for init in inits:
        assert make(session, batch=2, init=init)[1].image.size == (64, 72)


def test_a_mask_that_selects_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "photo.png")
    Image.new("LA", (64, 64), (255, 0)).save(tmp_path / "mask.png")
    open_source(InitImage(image=tmp_path / "photo.png", mask=tmp_path / "mask.png"))
    assert "mask.png is black or transparent everywhere" in caplog.text
