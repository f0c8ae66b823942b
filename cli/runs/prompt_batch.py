"""Runs --prompts FILE: reads one request per line, checks all lines first, and skips finished pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.arguments import build_parser
from cli.console import RunContext, SessionRun, ending
from cli.parser import Parser
from cli.requests import Request, build_requests
from cli.streams import warn
from cli.synonyms import SYNONYMS
from cli.words import join_levels
from modules.core.errors import Cancelled, DeviceError, LightDiffusionError, OptionsError, OutputError, quoted
from modules.core.paths import ModelFolders
from modules.core.typed import Unreadable, text, whole
from modules.tasks.prompt_file import PromptLine, read_prompt_file

if TYPE_CHECKING:
    from modules.tasks.prompt_record import SavedPicture

POSITIONAL = {"width": whole, "height": whole, "number": whole, "batch": whole, "prompt": text, "negative_prompt": text}
# These apply to the whole run, not to a single picture.
WHOLE_RUN = (
    "prompts", "reuse_seed", "compare", "stable_fast_report", "stable_fast_tune", "stable_fast_table",
    "stable_fast_export", "device", "dtype", "memory", "output_dir", "json", "quiet", "doctor", "list", "help",
    "version", "cluster", "workers", "upscale", "upscale_by", "upscale_to",
)  # fmt: skip
NOT_TOGETHER = ("reuse_seed", "compare", "prompt")
SWITCHES = ("hires_fix", "keep_first_pass", "prio_speed", "mask_invert", "only_masked", "mask_soft", "each_part")
STOPS_ALL = (Cancelled, DeviceError, OutputError)
MOST_TOLD = 20  # the maximum number of bad lines to report on standard error


@dataclass(frozen=True, kw_only=True)
class CheckedLine:
    """Line `number` (from 1) with its requests or its error."""

    number: int
    requests: Sequence[Request] = ()
    error: LightDiffusionError | None = None


class Outcome:
    """The answers of the lines that have begun, correct at every moment, also if a line fails halfway."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._answers: dict[int, dict[str, Any]] = {}
        self._ended: dict[str, Any] = {}

    @property
    def stopped(self) -> bool:
        """Tells whether an error has ended the whole run."""
        return "error" in self._ended

    def begin(self, line: CheckedLine) -> dict[str, Any]:
        return self._answers.setdefault(line.number, {"line": line.number, "status": "skipped", "images": []})

    def add(self, line: CheckedLine, saved: SavedPicture) -> None:
        answer = self.begin(line)
        answer["images"].append({"path": str(saved.path), "seed": saved.seed})
        if saved.fresh:
            answer["status"] = "done"
            self._run.say_path(saved.path)

    def fail(self, line: CheckedLine, error: LightDiffusionError) -> None:
        self._run.bar.close()
        text = ending(error, sum(len(answer["images"]) for answer in self._answers.values()))
        self.begin(line).update(failed(text, error.exit_code))
        self._run.say(f"error: {place(line, self._run.given)}: {text}")
        self._ended.setdefault("exit_code", error.exit_code)
        if isinstance(error, STOPS_ALL):
            self._ended = {"error": text, "exit_code": error.exit_code}

    def finish(self, line: CheckedLine) -> None:
        """Tells that nothing was left to do for this line, if so."""
        if self.begin(line)["status"] == "skipped" and not self._run.given.get("quiet"):
            self._run.say(f"{place(line, self._run.given)}: already done")

    def result(self) -> dict[str, Any]:
        """Returns what --json prints about the lines and the whole run."""
        answers = [self._answers[number] for number in sorted(self._answers)]
        return {"lines": answers, "images": [image for answer in answers for image in answer["images"]], **self._ended}


def read_lines(given: Mapping[str, Any], folders: ModelFolders) -> list[CheckedLine]:
    """Reads and checks the file's lines; raises OptionsError for options that do not apply to a whole file."""
    for name in NOT_TOGETHER:
        if name in given:
            raise OptionsError(f"--{name.replace('_', '-')} cannot be combined with --prompts; remove one of them.")
    return [_check_line(line, given, folders) for line in read_prompt_file(given["prompts"])]


def line_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parses a JSON line's values like command-line arguments; null resets an option to its default.

    Raises OptionsError, with the option name as written in the line.
    """
    given: dict[str, Any] = {}
    parser = build_parser()
    for key, value in values.items():
        name = option_name(key)
        if name not in parser.names():
            hint = parser.hint(as_option(key)).replace("nearest is --", "nearest is ")  # as in the line
            raise OptionsError(f"{quoted(key)} is not an option: {hint}.")
        if name in WHOLE_RUN:
            raise OptionsError(f"{quoted(key)} applies to the whole run: give it on the command line, not in a line.")
        if name in given:
            raise OptionsError(f"{quoted(key)} is given twice in this line, under two names: remove one of them.")
        if value is None:
            given[name] = None
        elif name in POSITIONAL:
            given[name] = _plain(key, value, POSITIONAL[name])
        elif value is False and name in SWITCHES:
            given[name] = False
        elif value is False and name == "stable_fast":
            given[name] = "off"
        else:
            given[name] = _parsed(parser, key, name, value)
    return given


def _parsed(parser: Parser, key: str, name: str, value: Any) -> Any:
    """Parses a value like a command-line argument, so that types, choices and other rules are in one place."""
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        arguments = join_levels([flag])
    else:
        written = value if isinstance(value, list) else [value]
        if any(not isinstance(item, (str, int, float)) for item in written):
            reason = f"{quoted(value)} is not a text, a number, true or false, or a list of those"
            raise OptionsError(f"{quoted(key)}: {reason}.")
        arguments = [f"{flag}={item}" for item in written]
    try:
        return parser.given(arguments)[0].get(name)
    except OptionsError as error:
        raise OptionsError(str(error).replace(flag, quoted(key), 1).replace("; see --help.", ".")) from None


def option_name(key: str) -> str:
    """Returns the name in `given` for `key`, which may be any command-line name, with - or _ between words."""
    option = as_option(key)
    name = SYNONYMS.get(option, option).removeprefix("--").replace("-", "_")
    return "negative_prompt" if name == "negative" else name


def as_option(key: str) -> str:
    """Returns the option as written on the command line."""
    return key if key.startswith("-") else "-" * min(len(key), 2) + key.replace("_", "-")


def _plain(key: str, value: Any, read: Callable[[object, str], Any]) -> Any:
    try:
        return read(value, quoted(key))
    except Unreadable as error:
        raise OptionsError(f"{error}.") from None


def merged(common: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """Merges the run's arguments with a line's own arguments, which take precedence."""
    return {name: value for name, value in {**common, **line}.items() if value is not None}


def run_prompts(lines: Sequence[CheckedLine], run: SessionRun) -> dict[str, Any]:
    """Makes the pictures of valid lines; returns the outcome of each line and of the whole run."""
    from modules.tasks.prompt_record import PromptRecord

    record, outcome = PromptRecord(run.output), Outcome(run)
    for line in lines:
        outcome.begin(line)
        try:
            run.cancel.check()
            for request in line.requests:
                for saved in record.pictures(request.options, run.session, on_progress=run.bar, cancel=run.cancel):
                    outcome.add(line, saved)
        except LightDiffusionError as error:
            outcome.fail(line, error)
        if outcome.stopped:
            break
        outcome.finish(line)
    return outcome.result()


def _check_line(line: PromptLine, given: Mapping[str, Any], folders: ModelFolders) -> CheckedLine:
    """Returns the line with its requests or its error."""
    from modules.generation.checks.request import check_request

    try:
        if line.error is not None:
            raise OptionsError(line.error)
        requests = build_requests(merged(given, line_arguments(line.values)))
        for request in requests:
            check_request(request.options, folders)
    except LightDiffusionError as error:
        return CheckedLine(number=line.number, error=error)
    return CheckedLine(number=line.number, requests=requests)


def refuse_lines(bad: Sequence[CheckedLine], given: Mapping[str, Any]) -> dict[str, Any]:
    """Reports each bad line; the run makes no pictures and ends with the exit code of the first bad line."""
    for line in bad[:MOST_TOLD]:
        warn(f"error: {place(line, given)}: {line.error}")
    more = f" and {len(bad) - MOST_TOLD} more lines" if len(bad) > MOST_TOLD else ""
    text = f"Nothing was made: correct {'this line' if len(bad) == 1 else 'these lines'}{more} and start again."
    warn(text)
    codes = [line.error.exit_code for line in bad if line.error is not None]
    answers = [
        {"line": line.number, "images": [], **failed(str(line.error), code)}
        for line, code in zip(bad, codes, strict=True)
    ]
    return {"lines": answers, "images": [], "error": text, "exit_code": codes[0]}


def failed(text: str, code: int) -> dict[str, Any]:
    return {"status": "failed", "error": text, "exit_code": code}


def place(line: CheckedLine, given: Mapping[str, Any]) -> str:
    return f"{given['prompts'].name}, line {line.number}"
