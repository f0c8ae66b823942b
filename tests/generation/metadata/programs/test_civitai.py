"""Civitai: its JPEGs, with a UTF-16 text that includes the generating program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from modules.generation.metadata.recall import recall_picture
from tests.generation.metadata.programs.comfyui_graphs import graph


def jpeg(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_civitais_jpegs(tmp_path: Path, encoding: str) -> None:
    settings = {"prompt": "ein Käfer, 日本", "negativePrompt": "dog", "cfgScale": 6, "sampler": "DPM++ 2M Karras"}
    settings |= {"steps": 25, "seed": 99, "width": 512, "height": 768, "clipSkip": 2, "resources": [{"id": 5}]}
    text = json.dumps(graph() | {"extraMetadata": json.dumps(settings, ensure_ascii=False)}, ensure_ascii=False)
    recalled = recall_picture(jpeg(tmp_path / "a.jpg", b"UNICODE\0" + text.encode(encoding)), tmp_path)
    options = recalled.options
    assert (options.prompt, options.seed, options.steps, options.clip_skip) == ("ein Käfer, 日本", 99, 25, 2)
    assert (options.sampler, options.scheduler) == ("dpmpp_2m", "karras") and "Civitai" in recalled.left_out
