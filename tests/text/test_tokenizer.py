"""Token ids against transformers' CLIPTokenizer, built from the same merges."""

from __future__ import annotations

import random

import pytest

from modules.text.tokenizer import Tokenizer
from tests.models.oracles import transformers_tokenizer

WORDS = (
    "photo cat's dogs' isn't WE'RE they'll i'd beautiful SUNSET ocean masterpiece 8k 1girl 2024 3.14 "
    "re-lit trending_on façade naïve Ångström STRASSE straße İstanbul ſharp K 東京 の 夜景 "
    "北京 서울 москва Ελλάδα שלום مرحبا हिन्दी ไทย 😀 👩‍👩‍👧‍👦 🏳️‍🌈 ✨ ½ ² Ⅷ ٣ "
    "<b>bold</b> &amp; &lt; <|endoftext|> <|startoftext|> <|EndOfText|> "
    "http://x.y/?q=1&r=2 a@b.c #tag ()[]{} (word:1.2) \\( ... !!! -- __ ~ ´ ` ” “ « » … — € ₿ \u200b \u00a0 \ufeff "
    "e\u0301 a\u0308\u0323 \u1e9b\u0323 ﬁ ﷽ 𝔘𝔫𝔦 𐍈 \x00 \x07 \x1b[31m \x7f \x85 \u2028 \u3000 "
    "antidisestablishmentarianism"
).split(" ")
SCRIPTS = (
    (0, 0x80),
    (0x80, 0x250),
    (0x300, 0x370),
    (0x370, 0x600),
    (0x3040, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1FAFF),
)
SEPARATORS = (" ", "  ", "\n", "\t", ",", ", ", "", ".", "\r\n", "\u3000", "'")


def varied_strings(count: int) -> list[str]:
    """Returns fixed edge cases, then mixtures of words and raw code points of many scripts."""
    rng = random.Random(2)
    texts = [
        "",
        " ",
        "\n\t ",
        "a",
        "'",
        "''s",
        "'S 'T 'Re",
        " ".join(rng.choices(WORDS, k=500)),
        "x" * 3000,
        "😀" * 200,
    ]
    while len(texts) < count:
        if rng.random() < 0.5:
            texts.append("".join(w + rng.choice(SEPARATORS) for w in rng.choices(WORDS, k=rng.randrange(1, 40))))
        else:
            low, high = rng.choice(SCRIPTS)
            texts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 60))))
    return texts


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    return transformers_tokenizer(tmp_path_factory.mktemp("clip"))


def test_ids_equal_transformers_on_a_thousand_strings(oracle) -> None:  # noqa: ANN001
    texts = varied_strings(1000)
    assert len(set(texts)) > 900
    ours = Tokenizer()
    differing = [
        text
        for text in texts
        if ours.encode(text) != oracle(text, add_special_tokens=False, verbose=False)["input_ids"]
    ]
    assert differing == []


def test_oracle_has_clips_ids(oracle) -> None:  # noqa: ANN001
    assert oracle("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(oracle) == 49408


def test_known_ids() -> None:
    assert Tokenizer().encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert Tokenizer().encode("") == []


def test_case_and_whitespace_do_not_matter() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.encode("  A\n PHOTO\tof  a Cat ") == tokenizer.encode("a photo of a cat")


def test_composed_and_decomposed_letters_are_one() -> None:
    assert Tokenizer().encode("cafe\u0301") == Tokenizer().encode("café")


def test_lone_surrogates_do_not_crash() -> None:
    assert Tokenizer().encode("cat \udcff") == Tokenizer().encode("cat ?")


def test_no_id_leaves_the_vocabulary() -> None:
    tokenizer = Tokenizer()
    ids = [index for text in varied_strings(200) for index in tokenizer.encode(text)]
    assert 0 <= min(ids) and max(ids) < 49408
