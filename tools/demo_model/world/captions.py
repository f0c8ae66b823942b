"""Turns facts into captions: picks phrases from tables, a whole batch at once, as token ids or as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tools.demo_model.world.scenes import COLOURS, SHAPES, Draw, Fact, Kind, Scenes

Rows = Sequence[Sequence[str]]  # one list of interchangeable phrases for each value of a fact

CONTEXT = 77
UNKNOWN, BOS, EOS = 0, 1, 2  # rows of the compact vocabulary that come before the known tokens
JUNK = tuple("?" * n for n in range(1, 7))  # n unknown words; never tokenised
QUALITY = ("masterpiece", "best quality", "highly detailed", "8k", "sharp focus", "simple", "flat design", "vector art",
           "digital art", "minimalist")  # fmt: skip
MEDIUM = ("a photo of", "a picture of", "a drawing of", "an image of", "a painting of", "an illustration of")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _backgrounds() -> Rows:
    def rows(colour: str) -> list[str]:
        a = article(colour)
        return [f"on {a} {colour} background"] * 5 + [
            f", {colour} background",
            f"on {colour} background",
            f"on {colour}",
            f"against {a} {colour} background",
            f"with {a} {colour} background",
        ]

    return [[""], *(rows(colour) for colour in COLOURS)]


def _corner(vertical: str, other: str, side: str) -> list[str]:
    return [f"in the {vertical} {side} corner"] * 4 + [
        f"in the {other} {side} corner", f"in the {vertical} {side}", f"at the {vertical} {side}",
        f", {vertical} {side}",
    ]  # fmt: skip


TABLES: dict[str, Rows] = {
    "medium": [MEDIUM],
    "quality": [[f", {word}" for word in QUALITY]],
    "quality first": [[f"{word} ," for word in QUALITY]],
    "article": [["a", "a", "a", "a", "a", "the", "one", ""], ["an", "an", "an", "an", "the", "one", ""]],
    "joined article": [["and a"] * 3 + ["next to a", "and", "with a"], ["and an"] * 3 + ["next to an", "and"]],
    "praise": [["beautiful"] * 4 + ["stunning", "peaceful", "colorful", "calm", "lovely", "bright", "nice"]],
    "size": [[""], ["small", "small", "little", "tiny"], ["large", "large", "big", "huge"]],
    "colour": [[c] for c in COLOURS],
    "noun": [[s] for s in SHAPES],
    "nouns": [[f"{s}s"] for s in SHAPES],
    "count": [[""], [""], ["two", "two", "two", "2"], ["three", "three", "three", "3"]],
    "background": _backgrounds(),
    "background first": [[""], *([f"{c} background ,", f"on {article(c)} {c} background ,"] for c in COLOURS)],
    "position": [
        [""],
        ["on the left"] * 4 + ["on the left side", "at the left", "to the left", ", left"],
        ["on the right"] * 4 + ["on the right side", "at the right", "to the right", ", right"],
        ["at the top"] * 4 + ["on top", "at the top edge", "near the top", ", top"],
        ["at the bottom"] * 4 + ["on the bottom", "near the bottom", "at the bottom edge", ", bottom"],
        ["in the center"] * 3 + ["in the middle", "in the centre", "at the center", ", centered", "centered"],
        _corner("top", "upper", "left"),
        _corner("top", "upper", "right"),
        _corner("bottom", "lower", "left"),
        _corner("bottom", "lower", "right"),
    ],
    "ground": [
        ["the ocean"] * 3 + ["the sea", "the sea", "ocean", "sea", "the water"],
        ["green hills", "the hills", "rolling hills", "hills", "the green hills"],
        ["the mountains", "mountains", "snowy mountains", "the snowy mountains"],
        ["the desert", "the desert", "desert dunes", "the dunes", "desert"],
    ],
    "time before": [
        ["sunny day over", "sunny day over", "blue sky over", "clear day over", "bright sky over"],
        ["sunset over"] * 4 + ["sunset at", "sunset above", "sunset sky over"],
        ["starry night over", "starry night over", "night over", "night sky over", "moonlit night over"],
    ],
    "time after": [
        ["on a sunny day", "on a sunny day", "in the daytime", "during the day", "under a blue sky", "by day", ""],
        ["at sunset", "at sunset", "at dusk", ", sunset", "during sunset"],
        ["at night", "at night", "under the moon", "in the moonlight", ", night", "under the stars"],
    ],
    "sky": [[""], ["red"], ["pink"], ["purple"]],
    "sky after": [[""], *([f"under a {c} sky", f", {c} sky", f"with a {c} sky"] for c in ("red", "pink", "purple"))],
    "sun": [[""], *([f", the sun {w}", f", sun {w}", f"with the sun {w}", f", the sun {w}"]
                    for w in ("on the left", "in the center", "on the right"))],
    "moon": [[""], *([f", the moon {w}", f", moon {w}", f"with the moon {w}", f", the moon {w}"]
                     for w in ("on the left", "in the center", "on the right"))],
    "boat": [[""], ["with a boat", "with a sailboat", "and a sailboat", ", a sailboat", ", a boat", ", sailboat"]],
    "clouds": [[""], ["with clouds", ", clouds", "with some clouds", "and clouds"]],
    "junk": [JUNK],
}  # fmt: skip


class Phrases:
    """All phrases, numbered from 0 (the empty phrase), in tables on the device, so that picking never waits."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.texts: list[str] = [""]
        numbers: dict[str, int] = {"": 0}
        self._tables: dict[str, tuple[Tensor, Tensor]] = {}
        for name, rows in TABLES.items():
            width = max(len(row) for row in rows)
            ids = torch.zeros(len(rows), width, dtype=torch.long)
            for index, row in enumerate(rows):
                for column, text in enumerate(row):
                    if text not in numbers:
                        numbers[text] = len(self.texts)
                        self.texts.append(text)
                    ids[index, column] = numbers[text]
            counts = torch.tensor([len(row) for row in rows], dtype=torch.float32)
            self._tables[name] = (ids.to(device), counts.to(device))

    def pick(self, draw: Draw, name: str, value: Tensor | None = None, chance: float | Tensor = 1.0) -> Tensor:
        """Picks one phrase id per row from the list `name` for `value` (None: value 0), with `chance`, otherwise 0."""
        ids, counts = self._tables[name]
        value = torch.zeros(draw.count, dtype=torch.long, device=self.device) if value is None else value
        column = (draw.uniform() * counts[value]).long()
        return torch.where(draw.uniform() < chance, ids[value, column.clamp(max=ids.shape[1] - 1)], 0)


class Captions:
    """Draws captions for scenes; `tokens` returns compact ids [N, 77] for training, `texts` plain sentences."""

    def __init__(self, device: torch.device, encode: Callable[[str], list[int]]) -> None:
        self.phrases = Phrases(device)
        spelled = [[] if "?" in text else encode(text) for text in self.phrases.texts]
        self.vocabulary = sorted({token for ids in spelled for token in ids})
        row = {token: index for index, token in enumerate(self.vocabulary, start=EOS + 1)}
        width = max(max(len(ids) for ids in spelled), len(JUNK))
        table = torch.full((len(spelled), width), -1, dtype=torch.long)
        for index, (text, ids) in enumerate(zip(self.phrases.texts, spelled, strict=True)):
            compact = [UNKNOWN] * len(text) if "?" in text else [row[token] for token in ids]
            table[index, : len(compact)] = torch.tensor(compact, dtype=torch.long)
        self._table = table.to(device)

    @property
    def size(self) -> int:
        """Counts the rows of the compact vocabulary."""
        return EOS + 1 + len(self.vocabulary)

    def tokens(self, facts: Tensor, *, drop: float = 0.0, only_junk: float = 0.0) -> Tensor:
        """Draws fresh captions; a share `drop` is empty, and a share `only_junk` has only unknown words."""
        draw = Draw(len(facts), facts.device, None)
        chosen = self._choose(draw, facts, junk=0.15)
        fate = draw.uniform()[:, None]
        noise = torch.stack([self.phrases.pick(draw, "junk", chance=0.6) for _ in range(chosen.shape[1])], 1)
        chosen = torch.where(fate < drop + only_junk, noise, chosen)
        chosen = torch.where(fate < drop, 0, chosen)
        return self._pack(self._table[chosen].flatten(1))

    def texts(self, scenes: Scenes, generator: torch.Generator) -> list[str]:
        """Returns sentences without unknown words."""
        chosen = self._choose(Draw(len(scenes), scenes.facts.device, generator), scenes.facts, junk=0.0)
        lines = [" ".join(self.phrases.texts[i] for i in row if i) for row in chosen.tolist()]
        return [line.replace(" ,", ",").strip(" ,") for line in lines]

    def _pack(self, flat: Tensor) -> Tensor:
        """Closes the gaps (-1) between phrases, then adds BOS and pads to 77 with EOS."""
        order = (flat < 0).to(torch.uint8).argsort(dim=1, stable=True)
        flat = flat.gather(1, order)[:, : CONTEXT - 2]
        flat = torch.where(flat < 0, EOS, flat)
        edge = torch.ones(len(flat), CONTEXT - 1 - flat.shape[1], dtype=torch.long, device=flat.device)
        return torch.cat([edge[:, :1] * BOS, flat, edge * EOS], dim=1)[:, :CONTEXT]

    def _choose(self, draw: Draw, facts: Tensor, junk: float) -> Tensor:
        thing = self._object_slots(draw, facts, junk)
        view = self._landscape_slots(draw, facts, junk)
        landscape = (facts[:, Fact.KIND] == Kind.LANDSCAPE)[:, None]
        length = max(len(thing), len(view))
        empty = torch.zeros_like(thing[0])
        stacked = [torch.stack(slots + [empty] * (length - len(slots)), 1) for slots in (thing, view)]
        return torch.where(landscape, stacked[1], stacked[0])

    def _object_slots(self, draw: Draw, facts: Tensor, junk: float) -> list[Tensor]:
        def pick(name: str, value: Tensor | None = None, chance: float | Tensor = 1.0) -> Tensor:
            return self.phrases.pick(draw, name, value, chance)

        pair, many = facts[:, Fact.KIND] == Kind.PAIR, facts[:, Fact.COUNT] > 1
        background, position = facts[:, Fact.BACKGROUND], facts[:, Fact.POSITION]
        first = draw.uniform() < 0.1  # the background opens the sentence
        early = draw.uniform() < 0.5  # the position comes before the background
        orange = COLOURS.index("orange")
        vowel = ((facts[:, Fact.COLOUR] == orange) & (facts[:, Fact.SIZE] == 0)).long()
        noun = torch.where(many, pick("nouns", facts[:, Fact.SHAPE]), pick("noun", facts[:, Fact.SHAPE]))
        second = pair.float()
        return [
            pick("junk", chance=junk * 0.5),
            pick("quality first", chance=0.06),
            pick("background first", background, first.float()),
            pick("medium", chance=0.1),
            torch.where(many, pick("count", facts[:, Fact.COUNT]), pick("article", vowel)),
            pick("junk", chance=junk * 0.3),
            pick("size", facts[:, Fact.SIZE]),
            pick("colour", facts[:, Fact.COLOUR]),
            noun,
            pick("position", position, early.float()),
            pick("joined article", (facts[:, Fact.COLOUR2] == orange).long(), second),
            pick("colour", facts[:, Fact.COLOUR2], second),
            pick("noun", facts[:, Fact.SHAPE2], second),
            pick("background", background, (~first).float()),
            pick("position", position, (~early).float()),
            pick("quality", chance=0.15),
            pick("quality", chance=0.08),
            pick("junk", chance=junk),
        ]

    def _landscape_slots(self, draw: Draw, facts: Tensor, junk: float) -> list[Tensor]:
        def pick(name: str, value: Tensor | None = None, chance: float | Tensor = 1.0) -> Tensor:
            return self.phrases.pick(draw, name, value, chance)

        before = (draw.uniform() < 0.65).float()  # "a sunset over the sea" or "the sea at sunset"
        after = 1 - before
        time, sun = facts[:, Fact.TIME], facts[:, Fact.SUN]
        body = torch.where(time == 2, pick("moon", sun), pick("sun", sun))
        a = torch.zeros_like(time)
        return [
            pick("junk", chance=junk * 0.5),
            pick("quality first", chance=0.06),
            pick("medium", chance=0.1),
            pick("article", a, before),
            pick("junk", chance=junk * 0.3),
            pick("praise", chance=before * 0.3),
            pick("sky", facts[:, Fact.SKY], before),
            pick("time before", time, before),
            pick("ground", facts[:, Fact.GROUND]),
            pick("time after", time, after),
            pick("sky after", facts[:, Fact.SKY], after),
            pick("clouds", facts[:, Fact.CLOUDS]),
            pick("boat", facts[:, Fact.BOAT]),
            body,
            pick("quality", chance=0.15),
            pick("quality", chance=0.08),
            pick("junk", chance=junk),
        ]
