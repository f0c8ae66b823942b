"""The demo model's world: drawings, captions, and a metric that passes perfect drawings and fails wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modules.text.tokenizer import Tokenizer
from tools.demo_model.evaluate import FLOORS, tally
from tools.demo_model.evaluate_extras import object_mask, style_distance
from tools.demo_model.judging.cases import build_cases, judge
from tools.demo_model.judging.measure import overlap, read_picture, to_pixels
from tools.demo_model.world.captions import CONTEXT, EOS, UNKNOWN, Captions
from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import COLOURS, JITTERS, SHAPES, Fact, Kind, Scenes, is_held_out, sample_scenes
from tools.demo_model.world.styles import STYLES, edges

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions(CPU, Tokenizer().encode)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_object(**facts: int) -> Scenes:
    row = torch.zeros(1, len(Fact), dtype=torch.long)
    row[0, Fact.COUNT] = 1
    for name, value in facts.items():
        row[0, Fact[name]] = value
    return Scenes(row, torch.full((1, JITTERS), 0.5), 1)


def test_perfect_drawings_pass_every_judgement(captions: Captions) -> None:
    groups = build_cases(captions, divide=4)
    pictures = {name: to_pixels(render(cases.scenes, (128, 128))) for name, cases in groups.items()}
    scores = tally(groups, pictures)
    assert set(FLOORS) <= set(scores)
    assert {name: share for name, (share, _) in scores.items() if share < 1.0} == {}


def test_wrong_drawings_fail_every_judgement(captions: Captions) -> None:
    """Each picture is judged by the facts of a scene that differs in everything judged."""
    groups = build_cases(captions, divide=8)
    pictures = {}
    for name, cases in groups.items():
        facts = cases.scenes.facts.clone()
        if name == "sunset":
            facts[:, Fact.SUN] = torch.tensor((0, 3, 1, 1))[facts[:, Fact.SUN]]
        else:
            facts[:, Fact.COLOUR] = (facts[:, Fact.COLOUR] + 5) % len(COLOURS)
            facts[:, Fact.SHAPE] = (facts[:, Fact.SHAPE] + 2) % len(SHAPES)
            facts[:, Fact.BACKGROUND] = (facts[:, Fact.BACKGROUND] + 3) % len(COLOURS) + 1
            facts[:, Fact.COUNT] = 5 - facts[:, Fact.COUNT].clamp(min=2)
            facts[:, Fact.POSITION] = torch.tensor((0, 3, 4, 4, 3, 6, 8, 9, 6, 7))[facts[:, Fact.POSITION]]
        wrong = Scenes(facts, cases.scenes.jitter, cases.scenes.objects)
        images = render(wrong, (128, 128))
        # the sky is warmer than the sea even by day, so the wrong sunset has red and blue swapped
        pictures[name] = to_pixels(images.flip(1) if name == "sunset" else images)
    scores = tally(groups, pictures)
    assert {name: share for name, (share, _) in scores.items() if share > 0.1} == {}


def test_noise_and_emptiness_are_not_objects() -> None:
    facts = one_object(COLOUR=1, BACKGROUND=1).facts[0]
    for picture in (torch.zeros(1, 3, 128, 128), torch.rand(1, 3, 128, 128, generator=generator()) * 2 - 1):
        verdict = judge("object", facts, to_pixels(picture)[0])
        assert not verdict["object colour"] and not verdict["shape"]
    assert not judge("object", facts, to_pixels(torch.zeros(1, 3, 128, 128))[0])["exactly one object"]


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("size", [(128, 128), (192, 128), (256, 256)])
def test_shapes_are_known_at_every_size(shape: int, size: tuple[int, int]) -> None:
    (found,) = read_picture(to_pixels(render(one_object(SHAPE=shape, BACKGROUND=3, COLOUR=0), size))[0]).objects
    assert found.shape == SHAPES[shape] and found.iou > 0.9


def test_crops_are_windows_of_the_whole_picture() -> None:
    scenes = sample_scenes(12, CPU, generator())
    whole = render(scenes, (64, 64))
    assert torch.equal(render(scenes, (64, 64), crop=64), whole)
    assert render(scenes, (64, 64), crop=32).shape == (12, 3, 32, 32)


def test_scenes_follow_their_seed_and_leave_out_judged_combinations(captions: Captions) -> None:
    first, again = (sample_scenes(400, CPU, generator()) for _ in range(2))
    assert torch.equal(first.facts, again.facts) and torch.equal(first.jitter, again.jitter)
    assert not is_held_out(first.facts[: first.objects]).any()
    groups = build_cases(captions)
    assert sum(len(cases.prompts) for cases in groups.values()) >= 300
    assert is_held_out(groups["object"].scenes.facts).all()
    clash = first.facts[:, Fact.BACKGROUND] == first.facts[:, Fact.COLOUR] + 1
    assert not (clash & (first.facts[:, Fact.KIND] == Kind.OBJECT)).any(), "a thing must differ from its background"


def test_captions_name_the_facts(captions: Captions) -> None:
    scenes = one_object(SHAPE=3, COLOUR=3, BACKGROUND=6, POSITION=6, SIZE=1)
    (text,) = captions.texts(scenes, generator())
    assert all(word in text for word in ("yellow", "star", "purple", "left"))
    assert any(word in text for word in ("small", "little", "tiny"))


def test_caption_tokens_are_packed_and_droppable(captions: Captions) -> None:
    ids = captions.tokens(sample_scenes(64, CPU).facts)
    assert ids.shape == (64, CONTEXT) and ids.min() >= 0 and ids.max() < captions.size
    ends = (ids == EOS).int()
    assert torch.equal(ends, ends.cummax(1).values), "nothing stands behind the first end"
    assert (captions.tokens(sample_scenes(64, CPU).facts, drop=1.0)[:, 1:] == EOS).all()
    known = captions.tokens(sample_scenes(64, CPU).facts, only_junk=1.0)
    assert set(known[:, 1:].unique().tolist()) <= {UNKNOWN, EOS}


@pytest.mark.parametrize("style", list(STYLES))
def test_style_distance_tells_styled_from_plain(style: str) -> None:
    from modules.images.convert import to_pil

    plain = render(one_object(SHAPE=3, COLOUR=3, BACKGROUND=6), (128, 128))
    half = (plain + STYLES[style](plain)) / 2
    distances = [style_distance(style, to_pil(plain)[0], to_pil(p)[0]) for p in (plain, half, STYLES[style](plain))]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1


def test_object_masks_do_not_shrink_with_soft_edges() -> None:
    """For similar colours with a decoder's blur, the half-way cut keeps the outline in place."""
    from tools.demo_model.world.styles import blur

    sharp = render(one_object(SHAPE=4, COLOUR=4, BACKGROUND=4), (128, 128))  # an orange heart on yellow
    first, soft, other = (
        object_mask(to_pixels(image)[0])
        for image in (sharp, blur(sharp, 1.5), render(one_object(SHAPE=2, COLOUR=4, BACKGROUND=4), (128, 128)))
    )
    assert overlap(first, soft) > 0.93 > 0.8 > overlap(first, other)
    assert overlap(first, None) == 0.0 and object_mask(to_pixels(torch.zeros(1, 3, 64, 64))[0]) is None


def test_edges_are_thin_lines_at_the_outline() -> None:
    image = render(one_object(SHAPE=0, COLOUR=0, BACKGROUND=3), (128, 128))
    lines = edges(image)[0, 0]
    assert set(lines.unique().tolist()) == {0.0, 1.0} and 0.005 < lines.mean() < 0.03
    mask = torch.from_numpy(read_picture(to_pixels(image)[0]).objects[0].mask)
    rim = torch.nn.functional.max_pool2d(mask[None, None].float(), 5, 1, 2)[0, 0].bool() & (lines > 0)
    assert rim.sum() == (lines > 0).sum()


def test_grid_holds_every_picture(tmp_path: Path) -> None:
    from PIL import Image

    from tools.demo_model.judging.grid import LABEL_HEIGHT, save_grid

    pictures = to_pixels(render(sample_scenes(5, CPU, generator()), (64, 64)))
    save_grid(pictures, ["label"] * 5, tmp_path / "grid.png", columns=3)
    assert Image.open(tmp_path / "grid.png").size == (3 * 68, 2 * (64 + LABEL_HEIGHT))
