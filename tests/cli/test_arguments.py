"""Tests the arguments: option names of other programs, misplaced words, repeated options, and the message for each."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest

from cli.arguments import build_parser, parse_arguments
from cli.listing import LISTS, list_names
from cli.requests import build_options, build_requests, check_together
from cli.runs.prompt_batch import line_arguments
from cli.streams import HarmlessFormatter, warn
from cli.synonyms import HABITS, SYNONYMS
from modules.core.errors import OptionsError
from modules.version import VERSION
from tests.cli.conftest import QUICK, SIZE, Run
from ui.arguments import build_parser as build_page_parser
from ui.arguments import read_arguments


def refusal(line: str) -> str:
    with pytest.raises(OptionsError) as error:
        given = parse_arguments(shlex.split(line))
        check_together(given, build_requests(given))
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("x --cfg-scale 5", "cfg", 5.0),
        ("x --guidance-scale=5", "cfg", 5.0),
        ("x --negative-prompt blurry", "negative_prompt", "blurry"),
        ("x --model tiny", "checkpoint", "tiny"),
        ("x -o there", "output_dir", Path("there")),
        ("x --output=there", "output_dir", Path("there")),
        ("x -W 72", "width", 72),
        ("x --width 72", "width", 72),
        ("x -H 72", "height", 72),
        ("x --height 72", "height", 72),
        ("-p 'a cat'", "prompt", "a cat"),
        ("--prompt 'a cat'", "prompt", "a cat"),
        ("x -n 3", "number", 3),
        ("x --batch-size 3", "batch", 3),
        ("-- '-a cat' 64", "prompt", "-a cat"),
        ("'-people in the park' 64", "prompt", "-people in the park"),
        ("'' 64", "prompt", ""),
        ("x --hires-fix 64 72", "width", 64),
        ("x --hires-fix --number 2", "number", 2),
        ("--hires-fix -- 2 64", "prompt", "2"),
        ("--list LoRA", "list", "loras"),
        ("--list checkpoint", "list", "checkpoints"),
        ("--list vaes", "list", "vae"),
        ("--list embedding", "list", "embeddings"),
        ("--list controlnets", "list", "controlnet"),
        ("--list upscaler", "list", "upscalers"),
        ("--list sampler", "list", "samplers"),
    ],
)
def test_what_is_taken(line: str, name: str, value: object) -> None:
    assert parse_arguments(shlex.split(line))[name] == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a red circle 128 128", ['width: "red" is not a number', "put the prompt in quotes"]),
        ("a 3 legged dog", ['height: "legged" is not a number', "put the prompt in quotes"]),
        ("'a cat' 128x128", ['width: "128x128"', "write 128 128"]),
        ("'a cat' 64.5", ['width: "64.5" is not a whole number']),
        ("'a cat' 64 64 1 1 9", ['"9" is one word too many']),
        ("--stable-fast ful 'a cat'", ['"ful"', "Did you mean full?"]),
        ("--stable-fast fsat", ['no level "fsat"', "off, graph, fused or full."]),
        ("--stable-fast quick 'a cat' 64", ['no level "quick"', "off, graph, fused or full."]),
        ("--stable-fast a red cat 64", ['"a"', "quotes"]),
        ("'a cat' -p 'a dog'", ["prompt is given twice"]),
        ("'a cat' 64 --width 64", ["width is given twice"]),
        ("x --seed 1 --seed 2", ["--seed is given twice"]),
        ("x --cfg 1 --cfg-scale 1", ["--cfg is given twice"]),
        ("x --img2img a.png --img2img b.png", ["--img2img is given twice"]),
        ("--prompts f.txt 'a cat'", ['"a cat"', "--prompts"]),
        ("x --seed 1 --reuse-seed", ["--seed and --reuse-seed"]),
        ("x 64 64 --hires-fix 2", ["--hires-fix takes no value", "write --hires-scale 2 to"]),
        ("x --hires-fix=2", ["--hires-fix: takes no value, but was given '2'"]),
        ("--hires-fix 1,5x x", ["write --hires-scale 1.5 to"]),
        ("x --stepz 3", ["--stepz", "the nearest is --steps;"]),
        ("x --outptu-dir o", ["--outptu-dir", "the nearest is --output-dir;"]),
        ("x --cpu", ["--cpu", "--device cpu"]),
        ("x --fp16", ["--fp16", "--dtype float16"]),
        ("x -W64", ["-W64", "write a space after -W"]),
        ("x --emphasis a111", ["--emphasis", '"a111"', "did you mean a1111?"]),
        ("x --seed seven", ['--seed: "seven" is not a number']),
        ("x --crop -5,0", ["--crop: needs a value", 'write "=" before it']),
        ("x --list textencoders", ["--list", '"textencoders"', "did you mean text_encoders?"]),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(line: str, words: list[str]) -> None:
    said = refusal(line)
    assert all(word in said for word in words) and "argument" not in said, said


def test_the_tables_of_names_lead_to_options_that_there_are() -> None:
    ours = {option for parser in (build_parser(), build_page_parser()) for option in parser.format_help().split()}
    for own in SYNONYMS.values():
        assert own in ours
    for written in HABITS.values():
        assert written.split()[0] in ours
    assert not (SYNONYMS.keys() & HABITS.keys())


def test_lines_of_a_file_take_the_same_names() -> None:
    line = {"-W": 72, "height": 80, "cfg_scale": 5, "batch_size": 2, "n": 3}
    assert line_arguments({"prompt": "", **line, "negative-prompt": "x"}) == {
        "prompt": "", "width": 72, "height": 80, "cfg": 5.0, "batch": 2, "number": 3, "negative_prompt": "x"
    }  # fmt: skip
    assert line_arguments({"prompt": "x", "cfg-scale": None}) == {"prompt": "x", "cfg": None}
    assert line_arguments({"rescale_cfg": 0.7}) == line_arguments({"guidance-rescale": 0.7}) == {"rescale_cfg": 0.7}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ({"stepz": None}, '"stepz" is not an option: the nearest is steps.$'),
        ({"num_images": 3}, '"num_images" is not an option: it is written --number here.$'),
        ({"steps": "many"}, '^"steps": "many" is not a number.$'),
        ({"guidance_scale": "much"}, '^"guidance_scale": "much" is not a number.$'),
        ({"lora": [{}]}, '^"lora": '),
        ({"cpu": True}, "--device cpu"),
        ({"batch": 1, "batch_size": 2}, "given twice"),
        ({"cfg": 1, "cfg_scale": 2}, "given twice"),
        ({"version": True}, "whole run"),
        ({"output": "there"}, "whole run"),
        ({"width": 10**400}, "width"),
        ({"steps": 10**400}, "out of range"),
        ({"stable_fast": "ful"}, "did you mean full?"),
        ({"two words": "x"}, "two words"),
    ],
)
def test_lines_of_a_file_are_refused_with_the_same_sentences(line: dict[str, object], word: str) -> None:
    with pytest.raises(OptionsError, match=word):
        build_requests({"prompt": "x", **line_arguments(line)})


def test_minus_one_is_a_random_seed_everywhere() -> None:
    assert build_options(parse_arguments(["x", "--seed", "-1"])).seed is None
    assert build_options({"prompt": "", **line_arguments({"seed": -1})}).seed is None
    assert "seed -2 is out of range" in refusal("x --seed -2")


def test_run_sh_says_the_same() -> None:
    assert str(read_arguments(build_page_parser(), ["-o", "there"]).output_dir) == "there"
    together = read_arguments(build_page_parser(), ["--most-together", "4", "--gather-ms", "2.5"])
    assert (together.most_together, together.gather_ms) == (4, 2.5)
    for given, word in (
        (["--cpu"], "--device cpu"),
        (["--prot", "1"], "--port"),
        (["--share"], "--listen"),
        (["7861"], "only options"),
        (["--port", "1", "--port", "2"], "given twice"),
        (["--most-together", "0"], "from 1 to 64"),
        (["--most-together", "8.5"], "not a whole number"),
        (["--gather-ms", "-1"], "from 0 to 10000 milliseconds"),
        (["--gather-ms", "nan"], "from 0 to 10000 milliseconds"),
    ):
        with pytest.raises(OptionsError, match=word):
            read_arguments(build_page_parser(), given)


def test_version_and_lists(run: Run, models: Path) -> None:
    assert run("--version") == (0, [Path(f"LightDiffusion-Next {VERSION}")], "")
    for kind in LISTS:
        advice = (
            f"write one into {models / 'styles.csv'}" if kind == "styles" else f"put one in {models / 'models' / kind}"
        )
        code, names, err = run("--list", kind)
        assert code == 0 and (bool(names) or advice in err)


def test_names_of_files_do_not_steer_the_terminal(
    model_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("modules.core.paths.PROJECT_ROOT", model_root)
    (model_root / "models" / "loras" / "red\x1b[31m\x07\nline.safetensors").touch()
    list_names("loras")
    warn("first \x1b[2J\nsecond")
    captured = capsys.readouterr()
    assert captured.out == "red\\x1b[31m\\x07 line.safetensors\n" and captured.err == "first \\x1b[2J\nsecond\n"
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", ("\x1b[2J",), None)
    assert HarmlessFormatter("%(message)s").format(record) == "\\x1b[2J"


def test_each_of_several_pictures_is_made_again(run: Run) -> None:
    first = [run("a cat", *SIZE, *QUICK, "--seed", seed, "--quiet")[1][0] for seed in ("1", "2")]
    code, again, err = run("--from-image", *(str(path) for path in first), "--steps", "1", "--device", "cpu")
    assert code == 0 and [path.stem.split("-")[1] for path in again] == ["1", "2"], err
    twice = [word for path in first for word in ("--from-image", str(path))]
    code, out, err = run(*twice, "--json", "--device", "cpu")
    assert code == 0 and all(f"-{seed}.png" in str(out[0]) for seed in (1, 2))
    for other in ("gone.png", __file__):
        code, out, err = run(*twice, other)
        assert (code, out) == (2, []) and Path(other).name in err
    assert run(*twice, "--compare")[0] == 2


def test_a_bare_stable_fast_means_full_and_takes_no_word_from_the_prompt() -> None:
    given = parse_arguments(["--stable-fast", "a cat", "64", "64", "1", "1"])
    assert given["stable_fast"] == "full" and given["prompt"] == "a cat"
    assert parse_arguments(["a", "--stable-fast=graph"])["stable_fast"] == "graph"


@pytest.mark.parametrize("level", ["off", "graph", "fused", "full"])
def test_a_level_behind_a_space_is_the_level(level: str) -> None:
    for arguments in (["a cat", "64", "64", "--stable-fast", level], ["--stable-fast", level, "a cat", "64", "64"]):
        given = parse_arguments(arguments)
        assert (given["stable_fast"], given["prompt"], given["width"], given["height"]) == (level, "a cat", 64, 64)
