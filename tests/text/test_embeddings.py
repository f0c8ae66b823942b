"""Textual inversion files of every layout, by every accepted name, and the messages for unsuitable files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.core.errors import ModelFileError
from modules.core.paths import ModelFolders
from modules.text.embeddings import EmbeddingLibrary, read_embedding


def vectors(count: int = 2, width: int = 768, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "embeddings"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def library(tmp_path: Path, folder: Path) -> EmbeddingLibrary:
    return EmbeddingLibrary(ModelFolders(tmp_path))


def layouts(value: torch.Tensor) -> dict[str, object]:
    parameter = torch.nn.Parameter(value)
    return {
        "a1111.pt": {"string_to_token": {"*": 265}, "string_to_param": {"*": parameter}, "name": "x", "step": 3},
        "original.pt": {"string_to_param": torch.nn.ParameterDict({"*": parameter}), "string_to_token": {}},
        "bare.pt": value,
        "diffusers.bin": {"<x>": value},
        "kohya.safetensors": {"emb_params": value},
        "half.safetensors": {"anything": value.half()},
    }


@pytest.mark.parametrize("name", layouts(vectors()))
def test_every_layout(folder: Path, name: str) -> None:
    value = vectors()
    content = layouts(value)[name]
    path = folder / name
    save_file(content, path) if name.endswith(".safetensors") else torch.save(content, path)  # type: ignore[arg-type]
    found = read_embedding(path, 768)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, value.half().float() if name.startswith("half") else value, rtol=0, atol=0)


def test_one_vector_without_a_row_dimension(folder: Path) -> None:
    torch.save({"<x>": vectors()[0]}, folder / "one.bin")
    assert read_embedding(folder / "one.bin", 768).shape == (1, 768)


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_no_header_length_is_taken_for_a_pickle(folder: Path, padding: int) -> None:
    """The first byte of a safetensors file is the low byte of its header's length; 0x80 also starts a pickle."""
    save_file({"emb_params": vectors(1)}, folder / "x.safetensors", metadata={"note": "x" * padding})
    assert read_embedding(folder / "x.safetensors", 768).shape == (1, 768)


@pytest.mark.parametrize(
    ("found", "needed", "message"),
    [
        (1024, 768, r"width 1024, so it is for SD2\.x; this checkpoint needs width 768 \(SD1\.x\)"),
        (768, 1024, r"width 768, so it is for SD1\.x; this checkpoint needs width 1024 \(SD2\.x\)"),
        (1280, 768, r"width 1280, so it is for SDXL; "),
        (768, 64, r"this checkpoint needs width 64:"),
        (100, 768, r"for another model; "),
    ],
)
def test_wrong_width_names_both_families(folder: Path, found: int, needed: int, message: str) -> None:
    save_file({"emb_params": vectors(1, found)}, folder / "x.safetensors")
    with pytest.raises(ModelFileError, match=message):
        read_embedding(folder / "x.safetensors", needed)


def sdxl(left: int = 768, right: int = 1280) -> dict[str, torch.Tensor]:
    return {"clip_l": vectors(3, left, seed=1), "clip_g": vectors(3, right, seed=2)}


def test_each_encoder_of_sdxl_gets_its_own_vectors(folder: Path) -> None:
    path, tensors = folder / "xl.safetensors", sdxl()
    save_file(tensors, path)
    assert torch.equal(read_embedding(path, 768, (768, 1280)), tensors["clip_l"])
    assert torch.equal(read_embedding(path, 1280, (768, 1280)), tensors["clip_g"])
    assert torch.equal(read_embedding(path, 1280), tensors["clip_g"])  # the refiner, which has CLIP-G alone


@pytest.mark.parametrize(
    ("tensors", "widths", "message"),
    [
        (sdxl(), (768,), r"width 768 and 1280, so it is for SDXL; this checkpoint needs width 768 \(SD1\.x\)"),
        (sdxl(), (1024,), r"width 768 and 1280, so it is for SDXL; this checkpoint needs width 1024 \(SD2\.x\)"),
        ({"emb_params": vectors()}, (768, 1280), r"for SD1\.x; this checkpoint needs width 768 and 1280 \(SDXL\)"),
        ({"clip_g": vectors(1, 1280)}, (768, 1280), r"width 1280, so .* needs width 768 and 1280 \(SDXL\)"),
        (sdxl(32, 64), (32,), r"width 32 and 64, .* needs width 32:"),
    ],
)
def test_an_embedding_for_other_encoders_is_refused(
    folder: Path, tensors: dict[str, torch.Tensor], widths: tuple[int, ...], message: str
) -> None:
    save_file(tensors, folder / "x.safetensors")
    for width in widths:
        with pytest.raises(ModelFileError, match=message):
            read_embedding(folder / "x.safetensors", width, widths)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"k{n}": vectors() for n in range(20)}, "not a textual inversion"),
        ({"conv": torch.zeros(3, 3, 3, 3)}, "not a textual inversion"),
        ({"a": vectors(), "b": vectors()}, "holds 2 embeddings"),
        ({"a": vectors() * torch.inf}, "not finite"),
        ({"a": vectors(0)}, "are empty"),
    ],
)
def test_other_files_are_refused(folder: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, folder / "x.safetensors")
    with pytest.raises(ModelFileError, match=message):
        read_embedding(folder / "x.safetensors", 768)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_code_in_a_pickle_is_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "evil.pt").open("wb") as file:
        pickle.dump({"string_to_param": Evil()}, file, protocol=2)
    with pytest.raises(ModelFileError, match=r"evil\.pt"):
        read_embedding(folder / "evil.pt", 768)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["sub/neg", "neg", "NEG", "sub/neg.safetensors", "Sub/Neg"])
def test_names(folder: Path, library: EmbeddingLibrary, name: str) -> None:
    (folder / "sub").mkdir()
    save_file({"emb_params": vectors()}, folder / "sub" / "neg.safetensors")
    assert library.get(name, 768).shape == (2, 768)


def test_safetensors_wins_over_a_pickle_of_the_same_name(folder: Path, library: EmbeddingLibrary) -> None:
    torch.save({"<x>": vectors(1)}, folder / "neg.bin")
    save_file({"emb_params": vectors(3)}, folder / "neg.safetensors")
    assert len(library.get("neg", 768)) == 3
    assert len(library.get("neg.bin", 768)) == 1


def test_missing_names_the_nearest(folder: Path, library: EmbeddingLibrary) -> None:
    with pytest.raises(ModelFileError, match="holds none"):
        library.get("easynegative", 768)
    save_file({"emb_params": vectors()}, folder / "EasyNegative.safetensors")
    with pytest.raises(ModelFileError, match=r'"easynegativ" in .*nearest: EasyNegative\.safetensors'):
        library.get("easynegativ", 768)


def test_prompts_cannot_name_files_elsewhere(tmp_path: Path, folder: Path, library: EmbeddingLibrary) -> None:
    outside = tmp_path / "secret.safetensors"
    save_file({"emb_params": vectors()}, outside)
    for name in (str(outside), "../../secret.safetensors", "../../secret"):
        with pytest.raises(ModelFileError, match="There is no embedding named"):
            library.get(name, 768)


def test_new_files_are_seen_at_once(folder: Path, library: EmbeddingLibrary) -> None:
    assert library.aliases() == {}
    save_file({"emb_params": vectors()}, folder / "new.safetensors")
    assert library.aliases() == {"new.safetensors": "new.safetensors", "new": "new.safetensors"}


def test_stamps_name_the_files_that_texts_may_mention_and_change_with_them(
    folder: Path, library: EmbeddingLibrary
) -> None:
    for name in ("glow", "fog (v2)", "other"):
        save_file({"emb_params": vectors()}, folder / f"{name}.safetensors")
    stamps = library.stamps(["a GLOW, at night", r"(fog \(v2\):1.2)"])
    assert [Path(path).stem for path, _ in stamps] == ["fog (v2)", "glow"]
    assert library.stamps(["nothing"]) == ()
    os.utime(folder / "glow.safetensors", ns=(1, 1))
    assert library.stamps(["glow"]) not in (stamps, stamps[1:])
