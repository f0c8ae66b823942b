"""The tiled upscale: image to image of tiles of one size, blended; its noise, progress and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from modules.core.errors import Cancelled, ModelFileError, OptionsError
from modules.core.progress import CancelToken
from modules.generation import job
from modules.generation.metadata.write import from_parameters
from modules.generation.options import ControlChoice, HiresOptions, InitImage, TiledOptions
from modules.generation.passes import tiled
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.models.unet import UNet
from tests.generation.test_text_to_image import make, options, pixels
from tests.tiny_project import save_controlnet, save_photo
from tests.upscalers import esrgan_tensors

TILED = TiledOptions(scale=2.0, overlap=16)


@pytest.fixture
def init(tmp_path: Path) -> InitImage:
    return InitImage(image=save_photo(tmp_path / "wide.png", 72, 40), denoise=0.5)


def shapes_of(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, ...]]:
    """Collects the shapes of the UNet's latents."""
    shapes: set[tuple[int, ...]] = set()
    forward = UNet.forward

    def seen(self: UNet, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        shapes.add(tuple(x.shape))
        return forward(self, x, *rest, **named)

    monkeypatch.setattr(UNet, "forward", seen)
    return shapes


@pytest.mark.parametrize("size", [(72, 40), (65, 129), (48, 33)])
def test_tiles_that_nobody_changed_give_the_enlarged_picture(
    session: Session, init: InitImage, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """With an autoencoder that loses nothing (each latent cell holds its 8x8 pixels), and no step."""
    monkeypatch.setattr(job, "encode_pictures", lambda vae, images, run: F.pixel_unshuffle(images, 8))
    monkeypatch.setattr(job, "decode_latents", lambda vae, latents, run: F.pixel_shuffle(latents, 8))
    image = save_photo(init.image.with_name("odd.png"), *size)
    enlarging = TiledOptions(scale=1.5, overlap=16)
    picture = make(session, init=InitImage(image=image, denoise=0.0), tiled=enlarging, height=64)[0]
    larger = (round(size[0] * 1.5), round(size[1] * 1.5))
    assert np.array_equal(pixels(picture), Image.open(image).resize(larger, Image.Resampling.LANCZOS))


def test_one_tile_is_image_to_image(session: Session, init: InitImage) -> None:
    """A picture of exactly one tile: the same noise, the same steps."""
    image = save_photo(init.image.with_name("tile.png"), 64, 72)
    start = InitImage(image=image, denoise=0.5)
    for sampler in ("euler_ancestral", "dpmpp_sde"):
        once = make(session, init=start, tiled=TiledOptions(scale=1.0, overlap=16), sampler=sampler)[0]
        assert np.array_equal(pixels(once), pixels(make(session, init=start, sampler=sampler)[0]))


def test_all_sizes_use_tiles_of_one_size(session: Session, init: InitImage, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = shapes_of(monkeypatch)
    for scale in (1.0, 1.7, 2.0):
        make(session, init=init, tiled=TiledOptions(scale=scale, overlap=16), width=64, height=64, steps=2)
    assert shapes == {(2, 4, 8, 8)}


def test_each_picture_of_a_batch_is_what_its_seed_makes(session: Session, init: InitImage) -> None:
    together = make(session, init=init, tiled=TILED, height=64, batch=2, sampler="euler_ancestral", steps=2)
    assert [picture.seed for picture in together] == [5, 6]
    alone = make(session, init=init, tiled=TILED, height=64, seed=6, sampler="euler_ancestral", steps=2)[0]
    assert np.abs(pixels(together[1]) - pixels(alone)).max() <= 1
    assert np.abs(pixels(together[0]) - pixels(alone)).mean() > 1


def test_tiles_made_together_are_the_same_and_fill_their_batches(
    session: Session, init: InitImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: 6 tiles in batches of 4, so two are made twice. They agree up to rounding."""
    one_by_one = make(session, init=init, tiled=TILED, height=64, steps=2)[0]
    monkeypatch.setattr(tiled, "together_on", lambda device: 4)
    shapes = shapes_of(monkeypatch)
    assert np.abs(pixels(make(session, init=init, tiled=TILED, height=64, steps=2)[0]) - pixels(one_by_one)).max() <= 1
    assert shapes == {(8, 4, 8, 8)}


def test_if_memory_runs_out_tiles_are_made_one_by_one(
    session: Session, init: InitImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, rows = UNet.forward, set[int]()

    def too_many(self: UNet, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        rows.add(x.shape[0])
        if x.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x, *rest, **named)

    monkeypatch.setattr(UNet, "forward", too_many)
    monkeypatch.setattr(tiled, "together_on", lambda device: 3)
    assert make(session, init=init, tiled=TILED, height=64, steps=2)[0].image.size == (144, 80)
    assert rows == {6, 2}


def test_a_control_picture_is_cut_like_the_picture(session: Session, init: InitImage, tiny_root: Path) -> None:
    """Without overlap, a change in the right half of the control picture changes only the tiles there."""
    save_controlnet(tiny_root / "models" / "controlnet" / "edges.safetensors")
    image = save_photo(init.image.with_name("two.png"), 128, 64)
    changed = Image.open(image)
    changed.paste((255, 0, 0), (64, 0, 128, 64))
    changed.save(image.with_name("changed.png"))

    def made(control: Path) -> np.ndarray:
        net = ControlChoice(name="edges", image=control, strength=10.0)
        start = InitImage(image=image, denoise=1.0)
        whole = make(session, init=start, tiled=TiledOptions(scale=1.0, overlap=0), height=64, controls=(net,))[0]
        return pixels(whole)

    difference = np.abs(made(image) - made(image.with_name("changed.png")))
    assert difference[:, :64].max() == 0 and difference[:, 64:].max() >= 1


def test_an_upscaler_file_enlarges_the_picture(session: Session, init: InitImage, tiny_root: Path) -> None:
    save_file(esrgan_tensors(), tiny_root / "models" / "upscalers" / "tiles.safetensors")
    sharp = TiledOptions(scale=2.0, overlap=16, method="tiles")
    with_file = make(session, init=init, tiled=sharp, height=64, steps=1)[0]
    assert with_file.image.size == (144, 80)
    assert (pixels(with_file) != pixels(make(session, init=init, tiled=TILED, height=64, steps=1)[0])).any()
    with pytest.raises(ModelFileError, match="nope"):
        make(session, init=init, tiled=TiledOptions(method="nope"))


def test_progress_counts_the_tiles_and_cancel_stops_between_them(session: Session, init: InitImage) -> None:
    events: list[Progress] = []
    cancel = CancelToken()

    def told(event: Progress) -> None:
        events.append(event)
        if event.batch == 3:
            cancel.cancel()

    with pytest.raises(Cancelled):
        list(generate(options(init=init, tiled=TILED, height=64), session, on_progress=told, cancel=cancel))
    assert {(event.batch, event.batches) for event in events} == {(1, 6), (2, 6), (3, 6)}
    assert {event.phase for event in events} == {"sampling"}


def test_the_picture_is_made_again_from_its_text(session: Session, init: InitImage) -> None:
    picture = make(session, init=init, tiled=TILED, height=64)[0]
    assert "Size: 64x64" in picture.parameters
    assert "SD upscale overlap: 16, SD upscale upscaler: lanczos" in picture.parameters
    again = from_parameters(picture.parameters, places=[init.image.parent])
    assert again.tiled == TILED and again.init == init
    assert np.array_equal(pixels(next(iter(generate(again, session)))), pixels(picture))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init": None}, "give one with --img2img"),
        ({"hires": HiresOptions()}, "HiresFix and the tiled upscale both enlarge"),
        ({"tiled": TiledOptions(overlap=40)}, "cannot overlap by 40 pixels: choose 32 at most"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(
    session: Session, init: InitImage, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionsError, match=words):
        make(session, **{"init": init, "tiled": TILED, **changes})


def test_a_mask_is_refused(session: Session, init: InitImage) -> None:
    with pytest.raises(OptionsError, match="leave out the mask"):
        make(session, init=InitImage(image=init.image, mask=init.image), tiled=TILED)


def test_a_result_that_is_too_large_is_refused_before_any_work(session: Session, tmp_path: Path) -> None:
    Image.new("RGB", (1100, 64)).save(tmp_path / "long.png")
    with pytest.raises(OptionsError, match="the enlarged picture's width 8800 is out of range"):
        make(session, init=InitImage(image=tmp_path / "long.png"), tiled=TiledOptions(scale=8.0))
    with pytest.raises(OptionsError, match="enlarges latents"):
        TiledOptions(method="bislerp")
