"""Recognises which program wrote a picture's text, even if its format is unsupported; other texts yield no request."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import OptionsError
from modules.generation.metadata.recall import recall_picture, recall_texts
from tests.generation.metadata.programs.comfyui_graphs import graph


def jpeg(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("texts", "whose"),
    [
        ({"XML:com.adobe.xmp": "<x:xmpmeta>Draw Things</x:xmpmeta>"}, "Draw Things"),
        ({"Software": "NovelAI", "Comment": "[1]"}, "NovelAI"),
        ({"invokeai_metadata": "{broken"}, "InvokeAI"),
        ({"workflow": "{}"}, "ComfyUI"),
        ({"use_stable_diffusion_model": "x"}, "Easy Diffusion"),
    ],
)
def test_what_is_not_read_says_whose_it_is(texts: dict[str, str], whose: str) -> None:
    with pytest.raises(OptionsError, match=whose):
        recall_texts(texts)


@pytest.mark.parametrize(
    "text",
    [
        "Camera: EOS R5, Lens: 50mm, ISO: 100",
        "Model: EOS, Size: 4000x3000, Version: 1.0, Seed: none",
        "a recipe\nSteps: 3, Flour: 500 g, Oven: 200",
        '{"prompt": 5}',
        '{"a": {"class_type": []}}',
    ],
)
def test_what_is_no_such_text_never_yields_a_request(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionsError, match="no generation text"):
        recall_picture(jpeg(tmp_path / "a.jpg", b"ASCII\0\0\0" + text.encode()), tmp_path)


def test_png_texts_behind_the_pixels_are_read(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"tEXt", b"prompt\0" + json.dumps(graph()).encode(), after_idat=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert recall_picture(tmp_path / "a.png", tmp_path).options.seed == 5
