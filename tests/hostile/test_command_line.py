"""Tests hostile streams and arguments: full and closed streams, endless files, and huge texts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.arguments import build_parser, parse_arguments
from cli.requests import build_requests
from cli.streams import tell
from modules.core.errors import LONGEST_QUOTE, ModelFileError, OptionsError, OutputError
from modules.core.paths import KINDS, ModelFolders
from modules.tasks.prompt_file import LARGEST_PROMPT_FILE, read_prompt_file
from ui.arguments import build_parser as build_page_parser
from ui.arguments import check_port, read_arguments

ROOT = Path(__file__).parents[2]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a place that fails when it is written to")


def shell(command: str) -> tuple[int, str]:
    """Returns the exit code and standard error of a command, in which $PY is this Python."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env={**os.environ, "PY": sys.executable}, stderr=subprocess.PIPE, timeout=120
    )
    return done.returncode, done.stderr.decode()


@needs_full
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("$PY pipeline.py --help >/dev/full", 4),
        ("PYTHONUNBUFFERED=1 $PY pipeline.py --help >/dev/full", 4),
        ("$PY pipeline.py --version >&-", 4),
        ("$PY pipeline.py --list samplers >/dev/full", 4),
        ("$PY pipeline.py x --steps 0 --json >/dev/full", 2),
        ("$PY pipeline.py --list samplers 2>&- >/dev/null", 0),
        ("$PY pipeline.py x --steps 0 2>/dev/full", 2),
        ("$PY pipeline.py --prompts /dev/full", 2),
        ("$PY -m ui.app --help >/dev/full", 4),
    ],
)
def test_streams_that_are_full_or_closed(command: str, code: int) -> None:
    got, err = shell(command)
    assert got == code and "Traceback" not in err and "Exception ignored" not in err, err
    assert err.count("\n") == (0 if "2>" in command else 1)


@needs_full
@pytest.mark.usefixtures("demo_checkpoint")
def test_a_full_output_keeps_the_pictures(tmp_path: Path) -> None:
    code, err = shell(f"$PY pipeline.py x 64 64 --steps 1 --device cpu --quiet --output-dir '{tmp_path}' >/dev/full")
    (picture,) = tmp_path.rglob("*.png")
    assert code == 4 and "No space left" in err and f"The finished pictures are in {picture.parent}." in err


@pytest.mark.parametrize("module", ["pipeline.py x", "pipeline.py x --json", "-m ui.app"])
def test_a_python_without_our_packages_says_what_to_start(module: str) -> None:
    code, err = shell(f"$PY -S {module} >/dev/null")  # -S: only the standard library
    assert code == 2 and err.count("\n") == 1 and "This Python has no " in err and str(ROOT) in err, err
    assert ("./run.sh" if "ui" in module else "./pipeline.sh") in err


def test_a_path_outside_the_encoding_is_written_unchanged(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open(sys.stdout.fileno(), "w", encoding="ascii", closefd=False) as narrow, pytest.MonkeyPatch.context() as at:
        at.setattr(sys, "stdout", narrow)
        tell("/tmp/caf\xe9/\udcff.png")
    assert capfdbinary.readouterr().out == "/tmp/café/".encode() + b"\xff.png\n"


@needs_full
def test_a_reader_that_is_full_raises_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match=r"^Standard output cannot be written \(No space left on device\).$"):
            tell("x")
        tell("what follows has nowhere to go")
        monkeypatch.undo()
        with pytest.raises(OSError):
            full.close()


def options_with_values() -> list[str]:
    takes = [line.split()[0] for line in build_parser().format_help().splitlines() if line.startswith("  --")]
    flags = ("--reuse-seed", "--hires-fix", "--keep-first-pass", "--prio-speed", "--compare", "--json", "--quiet",
             "--doctor", "--version", "--stable-fast")  # fmt: skip
    return [option for option in takes if option not in flags]


@pytest.mark.parametrize("option", options_with_values())
@pytest.mark.parametrize("value", ["--", "z" * 100_000, "9" * 5000, "~nosuch/x", "\x1b[31m\n", "1e999", "nan", ""])
def test_an_option_takes_any_text_or_says_why_not_in_a_short_line(option: str, value: str) -> None:
    words = [] if option in ("--prompt", "--prompts", "--from-image") else ["x"]
    if option.startswith("--control-") and option not in ("--control-net", "--control-image"):
        words += ["--control-net", "n", "--control-image", "i.png"]
    if option == "--control-net":
        words += ["--control-image", "i.png"]
    if option in ("--denoise", "--resize-mode") or option.startswith("--mask"):
        words += ["--img2img", "i.png"]
    try:
        given = parse_arguments([*words, f"{option}={value}"])
        if "prompts" not in given and "list" not in given:
            build_requests(given)
    except OptionsError as error:
        assert str(error).isprintable() and len(str(error)) < LONGEST_QUOTE + 300, str(error)[:1000]


@pytest.mark.parametrize("words", [["z" * 100_000] * 2, ["x"] * 1000, ["--" + "z" * 100_000], ["x", "-\x1b[1m"]])
def test_words_without_measure(words: list[str]) -> None:
    with pytest.raises(OptionsError) as error:
        parse_arguments(words)
    assert str(error.value).isprintable() and len(str(error.value)) < LONGEST_QUOTE + 300


@pytest.mark.parametrize("name", ["~nosuch/x", "z" * 100_000, "/" + "z" * 5000, "a/" * 3000, "a\0b", "\x1b[31m", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_no_system_could_hold_is_just_not_there(model_root: Path, kind: str, name: str) -> None:
    with pytest.raises(ModelFileError) as error:
        ModelFolders(model_root).find(kind, name)
    assert str(error.value).isprintable() and len(str(error.value)) < LONGEST_QUOTE + 300


def test_a_file_of_prompts_that_never_ends(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="over 16 MB"):
        read_prompt_file(Path("/dev/zero"))
    (tmp_path / "long.txt").write_bytes(b"a" * (LARGEST_PROMPT_FILE + 1))
    with pytest.raises(OptionsError, match="over 16 MB"):
        read_prompt_file(tmp_path / "long.txt")


@pytest.mark.parametrize("port", ["99999", "-1", "0", "65536", "7" * 5000, "http"])
def test_a_port_that_is_none(port: str) -> None:
    with pytest.raises(OptionsError, match="--port") as error:
        read_arguments(build_page_parser(), [f"--port={port}"])
    assert len(str(error.value)) < LONGEST_QUOTE + 100


def test_a_port_that_is_taken_or_an_address_that_is_not_ours() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        for address in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(OptionsError, match="in use by another program; choose another with --port"):
                check_port(address, other.getsockname()[1])
        free = other.getsockname()[1]
    check_port("127.0.0.1", free)
    for address in ("192.0.2.1", "no such name", "x" * 300, "é" * 100):
        with pytest.raises(OptionsError, match="not an address of this computer"):
            check_port(address, free)


def test_a_port_that_needs_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refused)
    with pytest.raises(OptionsError, match="Port 80 needs administrator rights"):
        check_port("127.0.0.1", 80)
