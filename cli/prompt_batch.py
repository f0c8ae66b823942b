"""--prompts FILE: every line is a request of its own; what is there is skipped, what fails is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.arguments import parse_arguments
from cli.console import Run
from cli.requests import build_options
from modules.core.errors import Cancelled, DeviceError, LightDiffusionError, OptionsError, OutputError
from modules.generation.prompt_file import PromptLine, read_prompt_file

if TYPE_CHECKING:
    from modules.generation.prompt_record import PromptRecord

POSITIONAL = {"width": int, "height": int, "number": int, "batch": int, "prompt": str, "negative_prompt": str}
# These belong to the run, not to a picture.
WHOLE_RUN = (
    "prompts", "reuse_seed", "compare", "stable_fast_report", "stable_fast_tune", "device", "dtype",
    "output_dir", "json", "quiet", "doctor", "list", "help",
)  # fmt: skip
NOT_TOGETHER = ("reuse_seed", "compare")
STOPS_ALL = (Cancelled, DeviceError, OutputError)


def read_requests(given: Mapping[str, Any]) -> list[PromptLine]:
    """The file's lines; raises OptionsError for options that make no sense for a whole file."""
    for name in NOT_TOGETHER:
        if name in given:
            raise OptionsError(f"--{name.replace('_', '-')} cannot be used together with --prompts; leave one out.")
    return read_prompt_file(given["prompts"])


def line_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON line's values as the command line would have given them; None takes an option back to its default."""
    given: dict[str, Any] = {}
    arguments: list[str] = []
    for key, value in values.items():
        name = {"negative": "negative_prompt", "model": "checkpoint"}.get(key, key.replace("-", "_"))
        if name in WHOLE_RUN:
            raise OptionsError(f"{key!r} counts for the whole run: give it on the command line, not in a line.")
        if value is None or name in POSITIONAL:
            given[name] = _plain(key, value, POSITIONAL.get(name))
        elif value is False and name in ("hires_fix", "keep_first_pass", "prio_speed"):
            given[name] = False
        elif value is False and name == "stable_fast":
            given[name] = "off"
        else:
            arguments += _as_written(key, name, value)
    # Parsed by themselves, so that types, choices and unknown names are checked in one place.
    return {**parse_arguments(["--prompts=-", *arguments]), **given}


def _plain(key: str, value: Any, kind: type | None) -> Any:
    if value is not None and kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise OptionsError(f"{key!r} must be {'a text' if kind is str else 'a whole number'}, not {value!r}.")
    return value


def _as_written(key: str, name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    written = value if isinstance(value, list) else [value]
    if any(not isinstance(item, (str, int, float)) for item in written):
        raise OptionsError(f"{key!r} must be a text, a number, true or false, or a list of those, not {value!r}.")
    return [f"{flag}={item}" for item in written]


def merged(common: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """The run's arguments with a line's own in front."""
    return {name: value for name, value in {**common, **line}.items() if value is not None}


def run_prompts(lines: Sequence[PromptLine], run: Run) -> dict[str, Any]:
    """Makes the pictures of all lines; the answer says what became of each line, and how the whole ends."""
    from modules.generation.prompt_record import PromptRecord

    record = PromptRecord(run.output)
    answers: list[dict[str, Any]] = []
    ending: dict[str, Any] = {}
    for line in lines:
        answer: dict[str, Any] = {"line": line.number, "status": "skipped", "images": []}
        answers.append(answer)
        try:
            _run_line(line, answer, record, run)
        except LightDiffusionError as error:
            answer |= {"status": "failed", "error": str(error), "exit_code": error.exit_code}
            run.say(f"error: {_place(line, run)}: {error}")
            ending.setdefault("exit_code", error.exit_code)
            if isinstance(error, STOPS_ALL):
                ending = {"error": str(error), "exit_code": error.exit_code}
                break
        if answer["status"] == "skipped" and not run.given.get("quiet"):
            run.say(f"{_place(line, run)}: already there")
    return {"lines": answers, "images": [image for answer in answers for image in answer["images"]], **ending}


def _run_line(line: PromptLine, answer: dict[str, Any], record: PromptRecord, run: Run) -> None:
    """Fills in the answer while pictures come, so that it is true even if the line fails half-way."""
    if line.error is not None:
        raise OptionsError(line.error)
    run.cancel.check()
    options = build_options(merged(run.given, line_arguments(line.values)))
    for saved in record.pictures(options, run.session, on_progress=run.bar, cancel=run.cancel):
        answer["images"].append({"path": str(saved.path), "seed": saved.seed})
        if not saved.fresh:
            continue
        answer["status"] = "done"
        run.say_path(saved.path)


def _place(line: PromptLine, run: Run) -> str:
    return f"{run.given['prompts'].name}, line {line.number}"
