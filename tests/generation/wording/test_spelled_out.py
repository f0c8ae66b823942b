"""Styles and variants in whole requests: what each picture says, on its own, in a batch and when it is made again."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.generation.checks.request import check_request
from modules.generation.metadata.write import from_parameters
from modules.generation.options import GenerationOptions, HiresOptions
from modules.generation.progress import Progress
from modules.generation.session import Session
from modules.generation.text_to_image import generate
from modules.generation.wording.spelled_out import merged, spelled_out
from modules.tasks.prompt_record import PromptRecord
from tests.generation.test_text_to_image import make, options, pixels

VARIED = "a {red|blue} __animals/pet__, <lora:{ink|clay}:0.5>"


@pytest.fixture
def folders(model_root: Path) -> ModelFolders:
    """A project with wildcards and styles, without models."""
    (model_root / "models" / "wildcards" / "animals").mkdir()
    write(model_root, "animals/pet", "# pets\n\ncat\n  dog \n__animals/bird__\n")
    write(model_root, "animals/bird", "{grey|green} parrot\n")
    (model_root / "styles.csv").write_text(
        'name,prompt,negative_prompt\nink,"ink of {prompt}, fine",colour\nsoft,{soft|hard} light,\n'
    )
    return ModelFolders(model_root)


@pytest.fixture
def painter(folders: ModelFolders, tiny_root: Path) -> Session:
    """A session on a tiny checkpoint with these wildcards and styles."""
    shutil.copytree(tiny_root / "models" / "checkpoints", folders.root / "models" / "checkpoints", dirs_exist_ok=True)
    return Session(folders, device="cpu")


def write(root: Path, name: str, text: str) -> None:
    (root / "models" / "wildcards" / f"{name}.txt").write_text(text)


def asked(**changes: Any) -> GenerationOptions:
    return GenerationOptions(**{"prompt": "a cat", "seed": 5, **changes})


@pytest.mark.parametrize(
    ("style", "prompt", "expected"),
    [
        ("", "a cat", "a cat"),
        ("soft", "", "soft"),
        ("soft, light", "a cat ", "a cat, soft, light"),
        ("old {prompt} by {prompt}", "cat", "old cat by cat"),
        ("old {prompt}", "", "old "),
    ],
)
def test_a_style_is_merged_as_in_a1111(style: str, prompt: str, expected: str) -> None:
    assert merged(style, prompt) == expected


def test_styles_are_added_in_order_and_their_variants_chosen(folders: ModelFolders) -> None:
    wanted = asked(styles=("ink", "soft"), negative_prompt="blurry", number=8)
    said = list(spelled_out(wanted, folders))
    assert {each.prompt for each in said} == {f"ink of a cat, fine, {how} light" for how in ("soft", "hard")}
    assert {(each.negative_prompt, each.styles) for each in said} == {("blurry, colour", ())}


def test_each_picture_says_what_its_seed_says_alone(folders: ModelFolders) -> None:
    together = list(spelled_out(asked(prompt=VARIED, number=3, batch=4), folders))
    assert [each.seed for each in together] == list(range(5, 17))
    assert {each.images for each in together} == {1}
    for each in together:
        (alone,) = spelled_out(asked(prompt=VARIED, seed=each.seed), folders)
        assert alone.prompt == each.prompt
        assert re.fullmatch(r"a (red|blue) (cat|dog|(grey|green) parrot), <lora:(ink|clay):0.5>", each.prompt)
    assert len({each.prompt for each in together}) > 4
    (only,) = spelled_out(asked(prompt=VARIED, batch=4, only=2), folders)
    assert (only.seed, only.prompt) == (7, together[2].prompt)


def test_without_variants_the_request_stays_one(folders: ModelFolders) -> None:
    wanted = asked(prompt=r"a \{red|blue\} {cat}", number=2, batch=3)
    assert list(spelled_out(wanted, folders)) == [replace(wanted, prompt="a {red|blue} {cat}")]


def test_pictures_are_made_with_the_chosen_words_and_made_again(painter: Session) -> None:
    events: list[Progress] = []
    wanted = options(prompt="a {red|blue} __animals/pet__", batch=3, steps=1)
    pictures = list(generate(wanted, painter, on_progress=events.append))
    said = [each.prompt for each in spelled_out(wanted, painter.folders)]
    assert [picture.parameters.split("\n")[0] for picture in pictures] == said
    assert [(picture.seed, picture.request_seed) for picture in pictures] == [(5, 5), (6, 5), (7, 5)]
    assert {(event.batch, event.batches) for event in events} == {(1, 3), (2, 3), (3, 3)}
    again = next(iter(generate(from_parameters(pictures[1].parameters), painter)))
    typed = make(painter, prompt=said[1], seed=6, steps=1)[0]
    assert (pixels(again) == pixels(pictures[1])).all() and (pixels(typed) == pixels(pictures[1])).all()


def test_plain_braces_of_a_picture_stay_plain(painter: Session) -> None:
    picture = make(painter, prompt=r"a \{red|blue\} \__animals/pet__", steps=1)[0]
    assert picture.parameters.startswith("a {red|blue} __animals/pet__\n")
    again = next(iter(generate(from_parameters(picture.parameters), painter)))
    assert again.parameters == picture.parameters and (pixels(again) == pixels(picture)).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "a __animals/pet__ __nope__"}, r'"nope".*For plain text write "\\__nope__"'),
        ({"negative_prompt": "{a|__nope__}"}, "nope"),
        ({"prompt": "__leads/astray__"}, "nowhere"),
        ({"prompt": "__empty__"}, "no line in the wildcard file.*empty.txt"),
        ({"styles": ("inc",)}, 'nearest: "ink"'),
        ({"styles": ("astray",)}, "nowhere"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_made(
    folders: ModelFolders, changes: dict[str, Any], words: str
) -> None:
    (folders.root / "models" / "wildcards" / "leads").mkdir()
    write(folders.root, "leads/astray", "cat\n{dog|__nowhere__}\n")
    write(folders.root, "empty", "# nothing\n")
    with (folders.root / "styles.csv").open("a") as file:
        file.write("astray,__nowhere__,\n")
    with pytest.raises(LightDiffusionError, match=words):
        check_request(asked(**changes), folders)


def test_a_prompt_that_grows_too_long_is_a_sentence(folders: ModelFolders) -> None:
    write(folders.root, "long", "word " * 3000)
    with pytest.raises(OptionsError, match="20000 is the most"):
        check_request(asked(prompt="__long__ __long__"), folders)


def test_a_file_of_prompts_resumes_pictures_with_variants(painter: Session, tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "out")
    wanted = options(
        prompt="a {red|blue} __animals/pet__", batch=2, steps=1, hires=HiresOptions(scale=1, keep_first_pass=True)
    )
    first = [(saved.seed, saved.path) for saved in PromptRecord(output).pictures(wanted, painter)]
    assert [seed for seed, _ in first] == [5, 5, 6, 6]
    first[2][1].unlink()
    second = list(PromptRecord(output).pictures(wanted, painter))
    assert [saved.fresh for saved in second] == [False, False, True, False]
    write(painter.folders.root, "animals/bird", "sparrow\n")
    assert all(saved.fresh for saved in PromptRecord(output).pictures(wanted, painter))
