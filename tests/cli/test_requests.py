"""Arguments become the options of a picture, or one sentence that explains what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cli.arguments import parse_arguments
from cli.requests import build_options, build_requests, lora_choice
from modules.core.errors import ModelFileError
from modules.generation.options import HiresOptions, LoraChoice
from tests.cli.command import SMALL, run


def test_upstream_positionals_and_flags_become_options() -> None:
    given = parse_arguments(["a sunset", "1024", "768", "2", "3", "--stable-fast", "--hires-fix", "--cfg", "5"])
    options = build_options(given)
    assert (options.prompt, options.width, options.height, options.number, options.batch) == (
        "a sunset",
        1024,
        768,
        2,
        3,
    )
    assert options.stable_fast == "full" and options.hires == HiresOptions() and options.cfg == 5.0


def test_a_preset_fills_what_was_not_given() -> None:
    options = build_options(parse_arguments(["x", "--preset", "tcd", "--steps", "6"]))
    assert (options.sampler, options.scheduler, options.steps, options.cfg) == ("tcd", "sgm_uniform", 6, 1.0)


def test_no_refiner_also_where_a_picture_had_one(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text(
        "parameters", "a cat\nSteps: 2, Seed: 5, Size: 64x64, Sampler: Euler, Refiner: gone, Refiner switch at: 0.5"
    )
    Image.new("RGB", (64, 64)).save(tmp_path / "made.png", pnginfo=text)
    again = ["--from-image", str(tmp_path / "made.png")]

    def refiner(*words: str) -> tuple[str | None, float | None]:
        (request,) = build_requests(parse_arguments(words))
        return request.options.refiner, request.options.refiner_start

    with pytest.raises(ModelFileError, match="Give another with --refiner"):
        refiner(*again)
    for words in ([*again, "--refiner", "None"], ["x", "--refiner", "none"], ["x", "--refiner="]):
        assert refiner(*words) == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("style", LoraChoice(name="style")),
        ("style:0.8", LoraChoice(name="style", strength=0.8)),
        ("style:0.8:0.6", LoraChoice(name="style", strength=0.8, text_strength=0.6)),
        ("C:\\loras\\a.safetensors:0.5", LoraChoice(name="C:\\loras\\a.safetensors", strength=0.5)),
    ],
)
def test_lora_arguments(text: str, expected: LoraChoice) -> None:
    assert lora_choice(text) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a", "0", "64"], 2, ["width 0"]),
        (["a", "7", "64"], 2, ["width 7", "multiple of 8"]),
        (["a", "100000", "64"], 2, ["width 100000"]),
        (["a", "--steps", "-4"], 2, ["steps -4"]),
        (["a", "--sampler", "eulr"], 2, ["eulr", "euler"]),
        (["a", "--scheduler", "karas"], 2, ["karas", "karras"]),
        (["embedding:gone"], 3, ["gone"]),
        (["a", "--lora", "gone:0.5"], 3, ["gone"]),
        (["a", "--lora", "x:strong"], 2, ["strong"]),
        (["a", "--denoise", "0.5"], 2, ["--img2img"]),
        (["a", "--img2img", "gone.png"], 2, ["gone.png"]),
        (["a", "--img2img", "gone.png", "--denoise", "2"], 2, ["denoise 2"]),
        (["a", "--control-net", "x"], 2, ["--control-image"]),
        (["a", "--control-strength", "0.5"], 2, ["--control-net"]),
        (["a", "--mask-blur", "3"], 2, ["--img2img"]),
        (["a", "--img2img", "a.png", "--mask-blur", "3"], 2, ["--mask-blur needs a mask"]),
        (["a", "--mask-colour", "ff0000"], 2, ["--img2img"]),
        (["a", "--img2img", "a.png", "--mask-colour", "red"], 2, ['"red" is not a colour: write it as ff0000.']),
        (["a", "--img2img", "a.png", "--mask-colour"], 2, ["--mask-colour: needs a value"]),
        (["a", "--img2img", "a.png", "--mask-color", "f00"], 2, ['"f00" is not a colour']),
        (["a", "--img2img", "a.png", "--mask-tolerance", "9"], 2, ["--mask-tolerance belongs to --mask-colour"]),
        (["a", "--img2img", "a.png", "--mask-colour=#ff0000", "--mask-tolerance", "256"], 2, ["mask tolerance 256"]),
        (["a", "--img2img", "a.png", "--mask-content", "fill"], 2, ["--mask-content needs a mask"]),
        (["a", "--img2img", "a.png", "--mask", "b.png", "--mask-padding", "3"], 2, ["--only-masked: add"]),
        (
            ["a", "--img2img", "a.png", "--mask", "b.png", "--only-masked", "--resize-mode", "fill"],
            2,
            ["--resize-mode"],
        ),
        (["a", "--img2img", "a.png", "--outpaint", "up=8"], 2, ["up=8", "left=64,right=64"]),
        (["a", "--img2img", "a.png", "--outpaint", "left=9"], 2, ["9, 0, 0, 0", "multiples of 8"]),
        (["a", "--img2img", "a.png", "--outpaint-seam", "9"], 2, ["--outpaint: add"]),
        (["a", "--outpaint", "left=8"], 2, ["--img2img"]),
        (["a", "--hires-scheduler", "karas"], 2, ["karas", "karras"]),
        (["a", "--hires-size", "big"], 2, ["big"]),
        (["a", "--hires-cfg", "-3"], 2, ["HiresFix cfg -3"]),
        (["a", "--hires-scale", "4.5"], 2, ["HiresFix scale 4.5"]),
        (["a", "--hires-denoise", "2"], 2, ["HiresFix denoise 2"]),
        (["a", "--hires-method", "bilinaer"], 3, ["bilinaer", "bilinear"]),
        (["a", "--keep-first-pass"], 2, ["--hires-fix"]),
        (["a", "--vae", "checkpoints"], 3, ["checkpoints"]),
        (["a", "--text-encoder", "gone"], 3, ["gone", "text_encoders"]),
        (["a", "--text-encoder", "tiny", "--text-encoder", "tiny"], 2, ["--text-encoder once"]),
        (["a", *["--text-encoder", "tiny"] * 3], 2, ["at most twice"]),
        (["a", "--device", "tpu"], 2, ["tpu"]),
        (["a", "--from-image", "gone.png"], 2, ["gone.png"]),
        (["a", "--stable-fast-tune", "10"], 2, ["--stable-fast too"]),
        (["a", "--stable-fast-table", "t.json"], 2, ["--stable-fast-table", "--stable-fast too"]),
        (["a", "--stable-fast-report", "r.txt"], 2, ["--stable-fast-report", "--stable-fast too"]),
        (["a", "--stable-fast=off", "--stable-fast-report", "r.txt"], 2, ["--stable-fast too"]),
        (["a", "--compare", "--stable-fast=off"], 2, ["nothing to compare", "--stable-fast=off"]),
        (["a", "64", "64", "2", "3", "--compare"], 2, ["--compare", "number and batch"]),
        (["a", "--stable-fast", "--stable-fast-tune", "-1"], 2, ["--stable-fast-tune -1", "seconds"]),
        (["a", "--stable-fast", "--stable-fast-tune", "soon"], 2, ["--stable-fast-tune soon", "seconds"]),
        ([], 2, ["prompt"]),
        (["a", "64", "64", "1", "1", "--stepz", "3"], 2, ["--stepz"]),
    ],
)
def test_wrong_input_is_one_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: list[str]
) -> None:
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "")
    assert "Traceback" not in err and all(word in err for word in words), err


def test_a_mask_of_another_size_is_one_sentence(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(project / "photo.png")
    Image.new("L", (64, 72)).save(project / "my mask.png")
    code, out, err = run(
        capsys, *SMALL, "--img2img", str(project / "photo.png"), "--mask", str(project / "my mask.png")
    )
    assert code == 2 and out == "" and err.count("\n") == 1, err
    assert all(words in err for words in ("my mask.png", "64x72", "photo.png", "64x64"))
