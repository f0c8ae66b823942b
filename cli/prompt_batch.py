"""--prompts FILE: every line is a request of its own; what is there is skipped, what fails is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.arguments import build_parser, parse_arguments
from cli.console import RunContext
from cli.requests import build_requests
from cli.synonyms import SYNONYMS
from modules.core.errors import Cancelled, DeviceError, LightDiffusionError, OptionsError, OutputError, quoted
from modules.core.typed import Unreadable, text, whole
from modules.tasks.prompt_file import PromptLine, read_prompt_file

if TYPE_CHECKING:
    from modules.tasks.prompt_record import PromptRecord

POSITIONAL = {"width": whole, "height": whole, "number": whole, "batch": whole, "prompt": text, "negative_prompt": text}
# These belong to the run, not to a picture.
WHOLE_RUN = (
    "prompts", "reuse_seed", "compare", "stable_fast_report", "stable_fast_tune", "device", "dtype",
    "output_dir", "json", "quiet", "doctor", "list", "help", "version",
)  # fmt: skip
NOT_TOGETHER = ("reuse_seed", "compare", "prompt")
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
    parser = build_parser()
    for key, value in values.items():
        name = option_name(key)
        if name not in parser.names():
            parser.refuse(as_option(key))
        if name in WHOLE_RUN:
            raise OptionsError(f"{quoted(key)} counts for the whole run: give it on the command line, not in a line.")
        if name in given:
            raise OptionsError(f"{quoted(key)} is given twice in this line, under two names: leave one of them out.")
        if value is None:
            given[name] = None
        elif name in POSITIONAL:
            given[name] = _plain(key, value, POSITIONAL[name])
        elif value is False and name in ("hires_fix", "keep_first_pass", "prio_speed"):
            given[name] = False
        elif value is False and name == "stable_fast":
            given[name] = "off"
        else:
            arguments += _as_written(name, value)
    # Parsed by themselves, so that types, choices and unknown names are checked in one place.
    return {**parse_arguments(arguments), **given}


def option_name(key: str) -> str:
    """What `key`, with - or _ between words and by any name that the command line takes, is called in `given`."""
    option = as_option(key)
    name = SYNONYMS.get(option, option).removeprefix("--").replace("-", "_")
    return "negative_prompt" if name == "negative" else name


def as_option(key: str) -> str:
    """How the command line writes it."""
    return key if key.startswith("-") else "-" * min(len(key), 2) + key.replace("_", "-")


def _plain(key: str, value: Any, read: Callable[[object, str], Any]) -> Any:
    try:
        return read(value, quoted(key))
    except Unreadable as error:
        raise OptionsError(f"{error}.") from None


def _as_written(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return [flag]
    written = value if isinstance(value, list) else [value]
    if any(not isinstance(item, (str, int, float)) for item in written):
        raise OptionsError(f"{flag}: {quoted(value)} is not a text, a number, true or false, or a list of those.")
    return [f"{flag}={item}" for item in written]


def merged(common: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """The run's arguments with a line's own in front."""
    return {name: value for name, value in {**common, **line}.items() if value is not None}


def run_prompts(lines: Sequence[PromptLine], run: RunContext) -> dict[str, Any]:
    """Makes the pictures of all lines; the answer says what became of each line, and how the whole ends."""
    from modules.tasks.prompt_record import PromptRecord

    record = PromptRecord(run.output)
    answers: list[dict[str, Any]] = []
    ending: dict[str, Any] = {}
    for line in lines:
        answer: dict[str, Any] = {"line": line.number, "status": "skipped", "images": []}
        answers.append(answer)
        try:
            _run_line(line, answer, record, run)
        except LightDiffusionError as error:
            run.bar.close()
            answer |= {"status": "failed", "error": str(error), "exit_code": error.exit_code}
            run.say(f"error: {_place(line, run)}: {error}")
            ending.setdefault("exit_code", error.exit_code)
            if isinstance(error, STOPS_ALL):
                ending = {"error": str(error), "exit_code": error.exit_code}
                break
        if answer["status"] == "skipped" and not run.given.get("quiet"):
            run.say(f"{_place(line, run)}: already there")
    return {"lines": answers, "images": [image for answer in answers for image in answer["images"]], **ending}


def _run_line(line: PromptLine, answer: dict[str, Any], record: PromptRecord, run: RunContext) -> None:
    """Fills in the answer while pictures come, so that it is true even if the line fails half-way."""
    if line.error is not None:
        raise OptionsError(line.error)
    run.cancel.check()
    for request in build_requests(merged(run.given, line_arguments(line.values))):
        for saved in record.pictures(request.options, run.session, on_progress=run.bar, cancel=run.cancel):
            answer["images"].append({"path": str(saved.path), "seed": saved.seed})
            if saved.fresh:
                answer["status"] = "done"
                run.say_path(saved.path)


def _place(line: PromptLine, run: RunContext) -> str:
    return f"{run.given['prompts'].name}, line {line.number}"
