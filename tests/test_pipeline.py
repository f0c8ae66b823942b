"""The command line: what it prints, how it ends, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pipeline
from cli.arguments import parse_arguments
from cli.requests import build_options, lora_choice
from modules.core import paths
from modules.gallery import output
from modules.generation.options import HiresOptions, LoraChoice
from tests import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root(model_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with one tiny checkpoint, used in place of the real one."""
    tiny.save_checkpoint(model_root / "models" / "checkpoints" / "tiny.safetensors")
    monkeypatch.setattr(paths, "PROJECT_ROOT", model_root)
    monkeypatch.setattr(output, "PROJECT_ROOT", model_root)
    return model_root


SMALL = ["a cat", "64", "64", "1", "1", "--steps", "2", "--device", "cpu", "--quiet"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        code = pipeline.main(list(arguments))
    except SystemExit as stop:  # argparse
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_prints_the_path_of_each_picture_and_nothing_else(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "a cat", "64", "72", "2", "2", *SMALL[5:], "--seed", "7")
    pictures = [Path(line) for line in out.splitlines()]
    assert code == 0 and len(pictures) == 4 and len(set(pictures)) == 4
    assert all(path.parent.parent == root / "output" for path in pictures)
    assert Image.open(pictures[0]).size == (64, 72)
    assert [path.stem.split("-")[1] for path in pictures] == ["7", "8", "9", "10"]


def test_json_for_scripts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SMALL, "--json", "--seed", "3")
    answer = json.loads(out)
    assert code == 0 and answer["images"][0]["seed"] == 3 and Path(answer["images"][0]["path"]).exists()
    assert answer["seconds"] > 0
    code, out, err = run(capsys, *SMALL, "--json", "--sampler", "eulr")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "eulr" in err


def test_a_picture_is_made_again_from_its_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "--seed", "11", "--negative", "dog", "--sampler", "DPM++ 2M SDE Karras")
    first = out.strip()
    code, out, _ = run(capsys, "--from-image", first, "--device", "cpu", "--quiet")
    assert code == 0 and Path(out.strip()) != Path(first)
    assert Image.open(out.strip()).tobytes() == Image.open(first).tobytes()
    assert Image.open(out.strip()).info["parameters"] == Image.open(first).info["parameters"]
    code, out, _ = run(capsys, "--from-image", first, "--seed", "12", "--device", "cpu", "--quiet")
    assert Image.open(out.strip()).tobytes() != Image.open(first).tobytes()


def test_another_precision_than_the_pictures_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, first, _ = run(capsys, *SMALL, "--dtype", "bfloat16")
    _, again, told = run(capsys, "--from-image", first.strip(), "--device", "cpu", "--quiet")
    assert "a different Precision" in told and again
    assert "another" not in run(capsys, "--from-image", again.strip(), "--device", "cpu", "--quiet")[2]
    assert "another" not in run(capsys, "--from-image", again.strip(), "--dtype", "bfloat16", "--quiet")[2]


def test_a_picture_of_a_checkpoint_given_as_a_path_is_made_again_where_that_is_given_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tiny.save_checkpoint(tmp_path / "else where" / "other.safetensors", seed=9)
    _, first, _ = run(capsys, *SMALL, "--checkpoint", str(elsewhere))
    assert str(tmp_path) not in Image.open(first.strip()).info["parameters"]
    code, _, told = run(capsys, "--from-image", first.strip(), "--device", "cpu", "--quiet")
    assert code == 3 and "other.safetensors" in told and "--checkpoint" in told and told.count("\n") == 1
    given = ("--checkpoint", str(elsewhere), "--device", "cpu", "--quiet")
    code, again, told = run(capsys, "--from-image", first.strip(), *given)
    assert code == 0 and "another" not in told, told
    assert Image.open(first.strip()).tobytes() == Image.open(again.strip()).tobytes()
    assert Image.open(first.strip()).info["parameters"] == Image.open(again.strip()).info["parameters"]


def test_a_cfg_of_many_digits_is_read_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "--cfg", "6.123456789")
    assert build_options({"from_image": Path(out.strip())}).cfg == 6.123456789


def test_a_seed_that_cannot_be_noted_does_not_lose_the_picture(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (root / "output" / output.LAST_SEED).mkdir(parents=True)
    code, out, _ = run(capsys, *SMALL)
    assert code == 0 and Path(out.strip()).exists() and "--reuse-seed" in caplog.text


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_goes_away_causes_no_traceback(
    root: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    class Gone:
        def write(self, _text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stdout", Gone())
    assert pipeline.main([*SMALL, *form]) == 141
    assert len(list((root / "output").rglob("*.png"))) == 1


@pytest.mark.parametrize("asked", ["picture", "doctor"])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_bug_of_ours_is_one_line_and_its_details_are_kept(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: str, as_json: bool
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("sizes differ\nat operation 7")

    monkeypatch.setattr("modules.generation.session.load_checkpoint", broken)
    monkeypatch.setattr("modules.stable_fast.doctor.diagnose.diagnose", broken)
    monkeypatch.setattr("tempfile.tempdir", str(root))
    words = SMALL if asked == "picture" else ["--doctor"]
    code, out, err = run(capsys, *words, *(["--json"] if as_json else []))
    (details,) = root.glob("lightdiffusion-error-*.txt")
    assert code == 1 and err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err
    assert "inside the program" in err and "RuntimeError: sizes differ" in err and str(details) in err
    assert "Traceback" in details.read_text() and "at operation 7" in details.read_text()
    assert (json.loads(out) == {"error": err.removeprefix("error: ").strip(), "exit_code": 1}) if as_json else not out


def test_details_that_cannot_be_kept_are_shown(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("modules.generation.session.load_checkpoint", broken)
    monkeypatch.setattr("tempfile.tempdir", str(root / "gone"))
    code, out, err = run(capsys, *SMALL, "--json")
    assert code == 1 == json.loads(out)["exit_code"] and "Traceback" in err and "(RuntimeError)" in err


def test_reuse_seed_repeats_the_last_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *SMALL, "--reuse-seed")
    assert code == 2 and "no seed to reuse" in err
    _, first, _ = run(capsys, *SMALL)
    _, second, _ = run(capsys, *SMALL, "--reuse-seed")
    assert Image.open(first.strip()).tobytes() == Image.open(second.strip()).tobytes()


def test_lists(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--list", "checkpoints")[1].splitlines() == ["tiny.safetensors"]
    assert "dpmpp_2m" in run(capsys, "--list", "samplers")[1].splitlines()
    assert "karras" in run(capsys, "--list", "schedulers")[1].splitlines()
    code, out, err = run(capsys, "--list", "lora")
    assert (code, out, err.count("\n")) == (0, "", 1) and str(root / "models" / "loras") in err


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/lightdiffusion-evil",)


def lora(path: Path) -> None:
    save_file({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 320, 1, 1)}, path)


def sdxl(path: Path) -> None:
    save_file(
        {
            "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
            "conditioner.embedders.1.model.ln_final.weight": torch.zeros(1280),
        },
        path,
    )


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("cut.safetensors", truncated, ["cut.safetensors"]),
        ("evil.ckpt", lambda p: torch.save({"state_dict": Evil()}, p), ["evil.ckpt", "code"]),
        ("page.safetensors", lambda p: p.write_text("<html>404</html>"), ["page.safetensors"]),
        ("style.safetensors", lora, ["LoRA"]),
        ("big.safetensors", sdxl, ["SDXL"]),
        ("empty.safetensors", lambda p: p.write_bytes(b""), ["empty.safetensors"]),
    ],
)
def test_bad_checkpoints_are_one_sentence(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Any, words: list[str]
) -> None:
    path = root / "models" / "checkpoints" / name
    tiny.save_checkpoint(path)
    damage(path)
    code, out, err = run(capsys, *SMALL, "--checkpoint", name)
    assert code == 3 and out == "" and err.count("\n") == 1 and err.startswith("error: ")
    assert all(word in err for word in words), err
    assert not Path("/tmp/lightdiffusion-evil").exists()
    assert not list((root / "output").rglob("*.png"))


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
        (["a", "--hires-scheduler", "karas"], 2, ["karas", "karras"]),
        (["a", "--hires-size", "big"], 2, ["big"]),
        (["a", "--hires-cfg", "-3"], 2, ["HiresFix cfg -3"]),
        (["a", "--hires-scale", "4.5"], 2, ["HiresFix scale 4.5"]),
        (["a", "--hires-denoise", "2"], 2, ["HiresFix denoise 2"]),
        (["a", "--hires-method", "bilinaer"], 3, ["bilinaer", "bilinear"]),
        (["a", "--keep-first-pass"], 2, ["--hires-fix"]),
        (["a", "--vae", "checkpoints"], 3, ["checkpoints"]),
        (["a", "--text-encoder", "gone"], 3, ["gone", "text_encoders"]),
        (["a", "--text-encoder", "tiny.safetensors", "--text-encoder", "b"], 2, ["--text-encoder once"]),
        (["a", "--device", "tpu"], 2, ["tpu"]),
        (["a", "--from-image", "gone.png"], 2, ["gone.png"]),
        (["a", "--stable-fast-tune", "10"], 2, ["--stable-fast too"]),
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
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: list[str]
) -> None:
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "")
    assert "Traceback" not in err and all(word in err for word in words), err


def test_a_mask_of_another_size_is_one_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (64, 64)).save(root / "photo.png")
    Image.new("L", (64, 72)).save(root / "my mask.png")
    code, out, err = run(capsys, *SMALL, "--img2img", str(root / "photo.png"), "--mask", str(root / "my mask.png"))
    assert code == 2 and out == "" and err.count("\n") == 1, err
    assert all(words in err for words in ("my mask.png", "64x72", "photo.png", "64x64"))


def test_a_file_that_is_not_a_vae_is_named_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora(root / "models" / "vae" / "style.safetensors")
    code, out, err = run(capsys, *SMALL, "--vae", "style")
    assert code == 3 and out == "" and err.startswith("error: style.safetensors: ") and "LoRA" in err
    assert "tiny" not in err


def test_a_split_checkpoint_makes_the_picture_of_the_whole(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = root / "models"
    tensors = load_file(models / "checkpoints" / "tiny.safetensors")
    parts = {"checkpoints/unet": "model.diffusion_model.", "vae/v": "first_stage_model."}
    for place, prefix in (parts | {"text_encoders/t": "cond_stage_model.transformer."}).items():
        part = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        save_file(part, models / f"{place}.safetensors")
    _, whole, _ = run(capsys, *SMALL, "--seed", "7", "--checkpoint", "tiny")
    for text in ("t", "tiny"):
        split = ("--checkpoint", "unet", "--vae", "v", "--text-encoder", text)
        code, out, err = run(capsys, *SMALL, "--seed", "7", *split)
        assert code == 0, err
        again = run(capsys, "--from-image", out.strip())[1]
        pictures = [Image.open(path.strip()).tobytes() for path in (whole, out, again)]
        assert pictures[0] == pictures[1] == pictures[2]
    code, out, err = run(capsys, *SMALL, "--checkpoint", "unet")
    assert (code, out) == (3, "") and "UNet alone" in err and "--vae" in err and "--text-encoder" in err


def test_without_any_checkpoint_it_says_where_to_put_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "models" / "checkpoints" / "tiny.safetensors").unlink()
    code, _, err = run(capsys, *SMALL, "--stable-fast")
    assert code == 3 and "no checkpoint" in err and str(root / "models" / "checkpoints") in err


def test_an_unwritable_output_folder_is_reported_before_the_work(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "file").write_text("in the way")
    code, _, err = run(capsys, *SMALL, "--output-dir", str(root / "file" / "out"))
    assert code == 4 and "--output-dir" in err


def test_a_full_disk_leaves_no_half_picture(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = run(capsys, *SMALL)
    assert code == 4 and "disk is full" in err and out == ""
    assert [p for p in (root / "output").rglob("*") if p.is_file()] == []


def test_help_is_quick_because_it_imports_no_torch() -> None:
    code = "import sys, pipeline\ntry: pipeline.main(['--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--stable-fast" in done.stdout


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


def test_a_bare_stable_fast_means_full_and_takes_no_word_from_the_prompt() -> None:
    given = parse_arguments(["--stable-fast", "a cat", "64", "64", "1", "1"])
    assert given["stable_fast"] == "full" and given["prompt"] == "a cat"
    assert parse_arguments(["a", "--stable-fast=graph"])["stable_fast"] == "graph"


@pytest.mark.parametrize("level", ["off", "graph", "fused", "full"])
def test_a_level_behind_a_space_is_the_level(level: str) -> None:
    for arguments in (["a cat", "64", "64", "--stable-fast", level], ["--stable-fast", level, "a cat", "64", "64"]):
        given = parse_arguments(arguments)
        assert (given["stable_fast"], given["prompt"], given["width"], given["height"]) == (level, "a cat", 64, 64)


def test_json_answers_wrong_arguments_too(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "a", "--json", "--stable-fast=most")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "most" in err


FAST = [*SMALL, "--stable-fast"]


def test_the_report_is_text_or_json_by_its_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("report.txt", "report.json", "REPORT.JSON"):
        assert run(capsys, *FAST, "--stable-fast-report", str(root / name))[0] == 0
    assert (root / "report.txt").read_text().startswith("Stable-Fast: fused instead of full")
    assert all(json.loads((root / name).read_text())["asked"] == "full" for name in ("report.json", "REPORT.JSON"))


def test_the_report_may_go_to_standard_output_behind_the_paths(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *FAST, "--stable-fast-report", "-")
    path, first, *rest = out.splitlines()
    assert code == 0 and Path(path).exists() and first.startswith("Stable-Fast: fused") and "Program 1" in rest
    code, out, err = run(capsys, *FAST, "--stable-fast-report", "-", "--json")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "standard output" in err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("gone/report.txt", 4, ["gone/report.txt", "No such file"]),
        ("models", 4, ["models", "Is a directory"]),
        ("photo.png", 2, ["photo.png", ".txt"]),
        ("models/checkpoints/tiny.safetensors", 2, ["tiny.safetensors", ".txt"]),
        ("two\nlines/report.txt", 4, ["two\\nlines/report.txt'", "No such file"]),
        ("two\nlines.png", 2, ["two\\nlines.png'", ".txt"]),
    ],
)
def test_an_unwritable_report_is_refused_before_the_work(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, words: list[str]
) -> None:
    got, out, err = run(capsys, *FAST, "--stable-fast-report", str(root / name))
    assert (got, out) == (code, "") and err.count("\n") == 1 and all(word in err for word in words), err
    assert not list((root / "output").rglob("*.png"))


def test_a_report_without_a_name_is_one_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *FAST, "--stable-fast-report", "")
    assert (code, out) == (2, "") and "name of a file" in err and "written to ." not in err


@pytest.mark.parametrize("option", ["--prompts", "--img2img", "--control-image"])
def test_a_report_overwrites_nothing_that_is_read(root: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    (root / "read.txt").write_text("a cat")
    (root / "same.txt").symlink_to(root / "read.txt")
    words = [] if option == "--prompts" else ["a cat"]
    words += ["--control-net", "x"] if option == "--control-image" else []
    given = [*words, "64", "64", option, str(root / "read.txt"), "--stable-fast"]
    code, out, err = run(capsys, *given, "--stable-fast-report", str(root / "same.txt"))
    assert (code, out) == (2, "") and err.count("\n") == 1 and "same.txt" in err and option in err, err
    assert (root / "read.txt").read_text() == "a cat"


def test_looking_at_the_reports_place_changes_nothing_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "old.txt").write_text("of yesterday")
    for name in ("old.txt", "new.txt"):
        assert run(capsys, *FAST, "--sampler", "eulr", "--stable-fast-report", str(root / name))[0] == 2
    assert (root / "old.txt").read_text() == "of yesterday" and not (root / "new.txt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a place that fails when it is written to")
def test_a_report_that_fails_at_the_end_loses_no_picture(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *FAST, "--json", "--stable-fast-report", "/dev/full")
    answer = json.loads(out)
    assert code == 4 == answer["exit_code"] and "/dev/full" in answer["error"]
    assert Path(answer["images"][0]["path"]).exists() and answer["stable_fast"]["level"] == "fused"
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [FAST, [*SMALL, "--compare"], [*SMALL, "--prio-speed"]])
def test_an_unknown_word_in_the_environment_stops_it(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "bogus")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert all(word in err for word in ("LIGHTDIFFUSION_STABLE_FAST", "bogus", "off", "graph", "fused", "full"))
    assert run(capsys, *SMALL)[0] == 0  # asks for nothing that could be lowered


def test_a_comparison_names_the_level_in_force(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *SMALL, "--compare", "--json")
    side = json.loads(out)["compare"]["stable_fast"]
    assert code == 0 and (side["asked"], side["level"]) == ("full", "fused") and "NVIDIA" in side["reason"]
    assert "fused: first picture" in err and "full: first picture" not in err and "peak memory" not in err


def test_a_comparison_with_what_the_environment_switched_off_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTDIFFUSION_STABLE_FAST", "no")
    code, out, err = run(capsys, *SMALL, "--compare")
    assert (code, out) == (2, "") and "nothing to compare" in err and "LIGHTDIFFUSION_STABLE_FAST" in err


def test_tuning_on_a_cpu_says_that_it_has_no_effect(
    root: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(capsys, *FAST, "--stable-fast-tune", "30")[0] == 0
    assert [record.message for record in caplog.records if "--stable-fast-tune" in record.message] == [
        "--stable-fast-tune has no effect on cpu: it times the kernels of an NVIDIA GPU."
    ]


def test_the_time_for_tuning_reaches_every_network(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    for place in ("runner", "module"):
        monkeypatch.setattr(
            f"modules.stable_fast.{place}.make_ready", lambda run, device, seconds, **_: asked.append(seconds)
        )
    for given, seconds in ((["--stable-fast-tune", "12"], 12.0), ([], 0.0)):
        assert pipeline.main([*SMALL, "--stable-fast", *given]) == 0
        assert asked == [seconds, seconds]  # UNet and VAE decoder: what is compiled on a CPU
        asked.clear()


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
