"""Tests that a prompt is counted as the engine reads it: with styles and choices, without tags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modules.catalog.styles import Style, write_styles
from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import GenerationOptions
from modules.generation.wording.prompt_length import prompt_length


@pytest.fixture
def folders(tmp_path: Path) -> ModelFolders:
    for kind in ("wildcards", "embeddings", "loras"):
        (tmp_path / "models" / kind).mkdir(parents=True)
    (tmp_path / "models" / "wildcards" / "beasts.txt").write_text("big old dog\n")
    (tmp_path / "models" / "loras" / "pen.safetensors").touch()
    save_file({"emb_params": torch.zeros(5, 768)}, tmp_path / "models" / "embeddings" / "fancy.safetensors")
    folders = ModelFolders(tmp_path)
    write_styles(folders, [Style(name="ink", prompt="{prompt} in ink", negative_prompt="colour")])
    return folders


@pytest.mark.parametrize(
    ("prompt", "emphasis", "tokens"),
    [
        ("a __beasts__", "comfy", 4),
        ("a {red|blue} dog <lora:pen:0.5>", "comfy", 3),
        ("a fancy dog", "comfy", 7),
        ("[a|a small] dog", "a1111", 3),  # the longest text
        ("one two AND three", "a1111", 2),
    ],
)
def test_counts_what_the_engine_reads(folders: ModelFolders, prompt: str, emphasis: str, tokens: int) -> None:
    length = prompt_length(GenerationOptions(prompt=prompt, emphasis=emphasis), folders, "prompt")
    assert (length.tokens, length.room) == (tokens, 75)


def test_styles_add_their_texts_to_both_prompts(folders: ModelFolders) -> None:
    options = GenerationOptions(prompt="a dog", styles=("ink",))
    assert [prompt_length(options, folders, name).tokens for name in ("prompt", "negative_prompt")] == [4, 1]


def test_a_mistake_is_told_only_of_its_own_prompt(folders: ModelFolders) -> None:
    options = GenerationOptions(prompt="a dog", negative_prompt="{a|__beast__}")
    assert prompt_length(options, folders, "prompt").tokens == 2
    with pytest.raises(ModelFileError, match="beasts"):
        prompt_length(options, folders, "negative_prompt")
    with pytest.raises(ModelFileError, match=r"nearest: .*pen"):
        prompt_length(replace(options, prompt="a dog <lora:pan:1>"), folders, "prompt")
    with pytest.raises(OptionsError, match="ink"):
        prompt_length(GenerationOptions(prompt="a", styles=("inky",)), folders, "prompt")


def test_tells_whether_a_random_seed_may_choose_another_text(folders: ModelFolders) -> None:
    options = GenerationOptions(prompt="{a|the} dog", negative_prompt="photo")
    assert prompt_length(options, folders, "prompt").one_of_several
    assert not prompt_length(options, folders, "negative_prompt").one_of_several
    assert not prompt_length(replace(options, seed=1), folders, "prompt").one_of_several
