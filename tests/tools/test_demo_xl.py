"""The XL demo: the app reads what training wrote, and pictures are taken, stored and adapted as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.loader.checkpoint import LoadedModel, load_checkpoint
from modules.loader.files.scaled import without_scales
from modules.lora.apply import lora_patches
from modules.text.encode import encode_texts
from modules.text.size_vector import PictureSizes, size_features
from modules.text.tokenizer import Tokenizer
from tools.demo_model import train_xl
from tools.demo_model.training.eight_bits import in_eight_bits, rounded
from tools.demo_model.training.loop.trainer import Trainer
from tools.demo_model.training.lora_stage import lora_weights
from tools.demo_model.training.xl.export import LIMIT_BYTES, export_xl
from tools.demo_model.training.xl.lora import load_xl_networks, wrap_networks
from tools.demo_model.training.xl.networks import CLIP_G, CLIP_L, UNET, XLNetworks, build_xl_networks
from tools.demo_model.world.captions import BOS, CONTEXT, EOS
from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import Scenes, sample_scenes
from tools.demo_model.world.views import cropped_view, plain_view, random_view

CPU = torch.device("cpu")
PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def networks(demo_checkpoint: Path) -> XLNetworks:
    """Builds untrained networks, whose tokens are already as fp8 stores them."""
    built = build_xl_networks(CPU, seed=1, vae_file=demo_checkpoint)
    for table in (built.text["clip_l"].text_model.embeddings.token_embedding, built.text["clip_g"].token_embedding):
        table.weight.data = table.weight.data.to(torch.float8_e4m3fn).float()
    return built


@pytest.fixture(scope="module")
def exported(networks: XLNetworks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("xl") / "demo_xl.safetensors"
    export_xl(networks, path)
    return path


@pytest.fixture(scope="module")
def loaded(exported: Path) -> LoadedModel:
    return load_checkpoint(exported, device="cpu", dtype=torch.float32)


@pytest.fixture
def scenes() -> Scenes:
    return sample_scenes(6, CPU, torch.Generator().manual_seed(4))


def compact_ids(networks: XLNetworks, prompt: str) -> torch.Tensor:
    row = {token: index for index, token in enumerate(networks.captions.vocabulary, start=EOS + 1)}
    known = [row[token] for token in Tokenizer().encode(prompt)]
    return torch.tensor([[BOS, *known, *[EOS] * (CONTEXT - 1 - len(known))]])


def test_the_app_takes_the_export_for_sdxl(exported: Path, loaded: LoadedModel) -> None:
    spec = loaded.spec
    assert spec.family == "SDXL" and spec.unet == UNET and spec.texts == (CLIP_L, CLIP_G)
    assert (spec.native_size, spec.prediction, spec.vae.scale_factor) == (128, "epsilon", 0.18215)
    assert exported.stat().st_size <= LIMIT_BYTES


@torch.no_grad()
def test_the_app_reads_prompts_and_sizes_as_training_did(networks: XLNetworks, loaded: LoadedModel) -> None:
    """Pads, end marks, skipped layers, pooled output and the order of the sizes agree with the app's own code."""
    texts = encode_texts(dict(loaded.text.module.items()), loaded.spec.texts, [PROMPT], emphasis="comfy")  # type: ignore[arg-type]
    sizes = PictureSizes(target=(192, 128), original=(64, 32), crop=(7, 9))
    told = size_features(sizes, UNET.vector_dim - CLIP_G.width, refiner=False).prompt  # type: ignore[operator]
    ours = networks.condition(compact_ids(networks, PROMPT), torch.tensor([[32.0, 64, 9, 7, 128, 192]]))
    pooled = texts[PROMPT].pooled
    assert pooled is not None
    torch.testing.assert_close(ours["context"][0], texts[PROMPT].context, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ours["vector"][0], torch.cat([pooled, told]), rtol=1e-2, atol=1e-2)


def test_eight_bits_are_read_as_they_were_rounded() -> None:
    torch.manual_seed(0)
    weights = {"a.weight": torch.randn(8, 4, 3, 3) * 1e-3, "token_embedding.weight": torch.randn(50, 8) * 0.5}
    stored = in_eight_bits(weights, lambda _name: True)
    read = without_scales(stored)
    assert all(stored[name].dtype == torch.float8_e4m3fn for name in weights) and set(read) == set(weights)
    assert torch.equal(read["a.weight"], rounded(weights["a.weight"]))
    for name, weight in weights.items():
        error = (read[name].float() - weight).norm() / weight.norm()
        assert 0.01 < error < 0.04


def test_networks_see_what_will_be_stored_but_train_exactly() -> None:
    layer = torch.nn.Linear(8, 4)
    trainer = Trainer(list(layer.parameters()), rate=0.01, dtype=torch.float32, coarse=[layer.weight])
    layer(torch.randn(3, 8)).sum().backward()
    trainer.set_rate(0.0, 200)
    trainer.update()
    assert torch.equal(layer.weight, rounded(trainer.masters[0])) and torch.equal(layer.bias, trainer.masters[1])
    assert not torch.equal(layer.weight, trainer.masters[0])


def test_a_crop_is_a_window_of_the_resized_picture(scenes: Scenes) -> None:
    whole = render(scenes, (80, 80))
    pictures, sizes = cropped_view(scenes, (64, 64), (1.25, 1.25), 2.0)
    assert len({tuple(row) for row in sizes[:, 2:4].tolist()}) > 1
    for picture, source, told in zip(pictures, whole, sizes.tolist(), strict=True):
        top, left = int(told[2]), int(told[3])
        assert told[:2] == [160, 160] and told[4:] == [64, 64]
        assert torch.equal(picture, source[:, top : top + 64, left : left + 64])


def test_a_small_original_is_blurrier(scenes: Scenes) -> None:
    def steepest(pictures: torch.Tensor) -> float:
        return float(pictures.diff(dim=3).abs().amax((1, 2, 3)).mean())

    plain, _ = plain_view(scenes, (64, 64))
    small, sizes = cropped_view(scenes, (64, 64), (1.0, 1.0), 0.25)
    assert sizes[0].tolist() == [16, 16, 0, 0, 64, 64]
    assert steepest(small) < 0.6 * steepest(plain)


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (48, 32)])
def test_random_views_have_the_targets_size(scenes: Scenes, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for _ in range(12):
        pictures, sizes = random_view(scenes, size)
        assert pictures.shape == (6, 3, *size)
        assert sizes[:, 4:].tolist() == [list(size)] * 6
        assert pictures.isfinite().all() and float(pictures.abs().max()) <= 1


def test_every_key_of_a_lora_lands(exported: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    wrappers = wrap_networks(load_xl_networks(exported, CPU))
    path = tmp_path / "lora.safetensors"
    save_file(lora_weights(wrappers), path)
    patches = lora_patches(path, loaded.unet, loaded.text, loaded.spec)
    assert {key.split("_")[1] for key in wrappers} == {"unet", "te1", "te2"}
    assert len(patches.unet) + len(patches.text) == len(wrappers) and patches.unmatched == []


@pytest.mark.slow
def test_one_command_makes_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["train_xl", "--device", "cpu", "--minutes", "0.2", "--out", str(tmp_path)])
    train_xl.main()
    model = load_checkpoint(tmp_path / "demo_xl.safetensors", device="cpu", dtype=torch.float32)
    assert model.spec.family == "SDXL" and sorted(path.stem for path in tmp_path.glob("*.pt")) == ["diffusion", "text"]
