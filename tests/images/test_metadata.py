"""The generation text: A1111's own examples, awkward prompts, and random round trips."""

from __future__ import annotations

import io
import random
import re

import pytest
from PIL import ExifTags, Image

from modules.images.metadata import parameters_of, parse_parameters, write_parameters

INFO = {"Steps": 20, "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": 7.0, "Seed": 1, "Size": "512x768"}
READ = {
    "Steps": "20",
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": "7",
    "Seed": "1",
    "Size": "512x768",
}


def test_the_text_is_what_other_programs_expect() -> None:
    text = write_parameters(INFO, "a cat, sitting", "dog, blurry")
    assert text == (
        "a cat, sitting\nNegative prompt: dog, blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768"
    )


def test_reads_a1111_text() -> None:
    text = (
        "masterpiece, (cat:1.2)\nsecond line <lora:style:0.8>\nNegative prompt: bad\nworse\n"
        "Steps: 28, Sampler: Euler a, CFG scale: 6.5, Seed: 4242, Size: 512x512, Model hash: 6ce0161689, "
        'Model: v1-5, Clip skip: 2, Lora hashes: "style: 1a2b, other: 3c4d", Version: v1.9.4'
    )
    prompt, negative, fields = parse_parameters(text)
    assert prompt == "masterpiece, (cat:1.2)\nsecond line <lora:style:0.8>"
    assert negative == "bad\nworse"
    assert fields["Lora hashes"] == "style: 1a2b, other: 3c4d"
    assert fields["Clip skip"] == "2" and fields["Version"] == "v1.9.4" and fields["Sampler"] == "Euler a"


def test_two_pairs_on_the_last_line_belong_to_the_prompt() -> None:
    assert parse_parameters("portrait\nmood: dark, light: low") == ("portrait\nmood: dark, light: low", "", {})


def test_a_text_without_fields_is_all_prompt() -> None:
    assert parse_parameters("just words") == ("just words", "", {})
    assert parse_parameters("") == ("", "", {})


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("", ""),
        ("", "only negative"),
        ("two\nlines", "also\ntwo"),
        ("Negative prompt: in the prompt", "real"),
        ("first\nNegative prompt: in the middle\nlast", ""),
        ("a", "b\nNegative prompt: c"),
        (" spaces around ", "\ttab\n"),
        ("windows\r\nlines\r", ""),
        ("fake\nSteps: 1, Sampler: x, Seed: 3", ""),
        ("a", "Steps: 1, Sampler: x, Seed: 3"),
        ('quotes "and" \\ backslash', "\u2028separator\x0b"),
        ("emoji 🎨, ünïcode, 日本語", "𝔘"),
    ],
)
def test_awkward_prompts_come_back_exactly(prompt: str, negative: str) -> None:
    assert parse_parameters(write_parameters(INFO, prompt, negative)) == (prompt, negative, READ)


@pytest.mark.parametrize(
    "value", ["a, b", "k: v", 'say "hi"', "", " padded ", "line\nbreak", '"', "\\", "C:\\a,b", "é"]
)
def test_values_come_back_exactly(value: str) -> None:
    fields = parse_parameters(write_parameters({**INFO, "Model": value, "Version": "1"}, "p"))[2]
    assert fields == {**READ, "Model": value, "Version": "1"}


def test_fields_that_are_none_are_left_out_and_floats_stay_exact() -> None:
    fields = parse_parameters(write_parameters({**INFO, "VAE": None, "Denoising strength": 0.1 + 0.2}, "p"))[2]
    assert "VAE" not in fields and float(fields["Denoising strength"]) == 0.1 + 0.2


def test_too_few_fields_and_impossible_names_are_refused() -> None:
    with pytest.raises(ValueError, match="three|3"):
        write_parameters({"Steps": 1, "Seed": 2, "VAE": None}, "p")
    with pytest.raises(ValueError, match="bad:key"):
        write_parameters({**INFO, "bad:key": 1}, "p")


def test_ordinary_prompts_need_no_extra_fields() -> None:
    assert "Exact" not in write_parameters(INFO, "a cat\nin a hat", "dog")
    assert "Exact" in write_parameters(INFO, "a cat ", "dog")


PIECES = [
    *["Negative prompt:", "\n", "\r", " ", ",", ":", '"', "\\", "Steps: 20", "Seed: 1", "Size: 8x8", "(cat:1.2)"],
    *["Exact prompt: ", "é", "🎨", "\u2028", "\x1f", "\x85", "{}", "a1", "-", "/", "\\n", "null", "Model: x, "],
]


def random_text(source: random.Random) -> str:
    return "".join(source.choice(PIECES) for _ in range(source.randrange(12)))


def test_random_texts_come_back_exactly() -> None:
    source = random.Random(20261123)
    for _ in range(4000):
        prompt, negative, value = (random_text(source) for _ in range(3))
        read = parse_parameters(write_parameters({**INFO, "Model": value}, prompt, negative))
        assert read == (prompt, negative, {**READ, "Model": value})


def test_random_garbage_never_raises() -> None:
    source = random.Random(7)
    for _ in range(2000):
        prompt, negative, fields = parse_parameters(random_text(source) + random_text(source))
        assert isinstance(prompt, str) and isinstance(negative, str) and isinstance(fields, dict)


def test_an_independent_reader_finds_the_fields() -> None:
    """Uses essentially the regular expression of third-party readers: quoted values, or everything up to a comma."""
    text = write_parameters({**INFO, "Lora hashes": "a: 1, b: 2"}, "cat", "dog")
    pairs = re.findall(r'([A-Z][\w ]*): ("[^"]*"|[^,]*)(?:, |$)', text.split("\n")[-1])
    assert dict(pairs) == {**READ, "Lora hashes": '"a: 1, b: 2"'}


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_exif_comments_are_read(encoding: str, kind: str) -> None:
    text = write_parameters(INFO, "a café", "")
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode(encoding)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind, exif=exif)
    assert parameters_of(Image.open(buffer)) == text


def test_a_picture_without_text_gives_none() -> None:
    assert parameters_of(Image.new("RGB", (8, 8))) is None
