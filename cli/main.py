"""The command line: arguments -> GenerationOptions -> pictures on disk, their paths on standard output."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.arguments import parse_arguments
from cli.console import ProgressBar, Run, stop_on_interrupt
from cli.prompt_batch import read_requests, run_prompts
from cli.report_file import check_report_file, write_report
from cli.requests import build_options, check_together
from modules.core.errors import DeviceError, LightDiffusionError, OutputError, bug_text
from modules.core.progress import CancelToken

if TYPE_CHECKING:
    from modules.generation.options import GenerationOptions
    from modules.generation.session import Session

NOBODY_READS = 141  # what shells say of a program whose reader has gone


def list_names(kind: str) -> list[str]:
    from modules.core.paths import ModelFolders
    from modules.sampling.names import SAMPLERS, SCHEDULERS

    if kind in ("samplers", "schedulers"):
        return list(SAMPLERS if kind == "samplers" else SCHEDULERS)
    return ModelFolders().list(kind)


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Makes and saves the pictures; returns what --json prints."""
    lines = read_requests(given) if "prompts" in given else []
    options = None if lines else build_options(given)
    if options is not None:
        check_together(given, options)
    cancel, bar = CancelToken(), ProgressBar(quiet=given.get("quiet", False))
    with stop_on_interrupt(cancel):
        from modules.generation.output import OutputFolder
        from modules.generation.session import Session

        output = OutputFolder(given.get("output_dir"))
        if options is not None and given.get("reuse_seed"):
            options = replace(options, seed=output.last_seed())
        output.check_writable()
        check_report_file(given)
        seconds = given.get("stable_fast_tune", 0.0)
        session = Session(device=given.get("device"), dtype=given.get("dtype"), tuning_seconds=seconds)
        cancel.check()  # Ctrl-C while everything was imported
        began = time.perf_counter()
        shared = Run(given=given, session=session, output=output, bar=bar, cancel=cancel)
        make = make_comparison if given.get("compare") else make_pictures
        try:
            result = run_prompts(lines, shared) if options is None else make(options, shared)
        finally:
            bar.close()
    if "from_image" in given and result["images"]:
        tell_changed_facts(given, Path(result["images"][0]["path"]))
    result["seconds"] = round(time.perf_counter() - began, 3)
    if result.get("exit_code") == DeviceError.exit_code:  # measured times lie on the GPU
        return result
    told = tell_stable_fast(given, session)
    return result | {name: value for name, value in told.items() if name not in result}  # the first error stays


def make_pictures(options: GenerationOptions, run: Run) -> dict[str, Any]:
    from modules.generation.text_to_image import generate

    saved: list[dict[str, Any]] = []
    for picture in generate(options, run.session, on_progress=run.bar, cancel=run.cancel):
        path = run.output.save(picture)
        saved.append({"path": str(path), "seed": picture.seed})
        run.say_path(path)
    return {"images": saved}


def make_comparison(options: GenerationOptions, run: Run) -> dict[str, Any]:
    """Saves one picture with both halves; its text is that of the accelerated half."""
    from modules.generation.compare import compare

    comparison = compare(options, run.session, on_progress=run.bar, cancel=run.cancel)
    picture = comparison.accelerated.picture
    path = run.output.save(replace(picture, image=comparison.image))
    run.say(comparison.to_text())
    run.say_path(path)
    return {"images": [{"path": str(path), "seed": picture.seed}], "compare": comparison.to_dict()}


def tell_stable_fast(given: dict[str, Any], session: Session) -> dict[str, Any]:
    """The status line on standard error, the report where it was asked for; the pictures are told whatever fails."""
    report = session.stable_fast_report
    if report is None:
        if "stable_fast_report" in given:
            print("There is no report: nothing was made with Stable-Fast.", file=sys.stderr)
        return {}
    print(report.status_line(), file=sys.stderr)
    level, reason = report.in_force
    answer: dict[str, Any] = {"stable_fast": {"status": report.status_line(), "level": level, "reason": reason}}
    if "stable_fast_report" in given:
        try:
            write_report(given["stable_fast_report"], report)
        except OutputError as error:
            print(f"error: {error}", file=sys.stderr)
            answer |= {"error": str(error), "exit_code": error.exit_code}
    return answer


def tell_changed_facts(given: dict[str, Any], made: Path) -> None:
    """Why a picture made again is not the same bit for bit, where that was not asked for."""
    from modules.generation.metadata import changed_facts

    asked = {"Model hash": "checkpoint", "Precision": "dtype"}
    changed = [name for name in changed_facts(given["from_image"], made) if asked.get(name) not in given]
    if changed:
        names = ", ".join(changed)
        print(f"{given['from_image'].name} was made with another {names}: expect differences.", file=sys.stderr)


def refuse(text: str, code: int, *, as_json: bool) -> int:
    """One line for people, one object for scripts; gives the exit code back."""
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    print(f"error: {text}", file=sys.stderr)
    return code


def keep_details(error: Exception) -> str:
    """Writes the traceback into a file, and says where it is."""
    details = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lightdiffusion-error-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(details)
    except OSError:  # no room for it
        sys.stderr.write(details)
        return "the lines above"
    return f"the details in {file.name}"


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments  # known before all the others are understood
    try:
        given = parse_arguments(arguments)
        if "list" in given:
            print("\n".join(list_names(given["list"])))
            return 0
        if given.get("doctor"):
            from modules.generation.doctor import run_doctor

            return run_doctor(as_json=given.get("json", False))
        result = run(given)
        if given.get("json"):
            print(json.dumps(result), flush=True)
        return result.get("exit_code", 0)
    except LightDiffusionError as error:
        return refuse(str(error), error.exit_code, as_json=as_json)
    except BrokenPipeError:  # as with `| head -1`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # what is left in the buffer would fail again at exit
        return NOBODY_READS
    except Exception as error:  # noqa: BLE001  # a bug of ours, which is not to fill a terminal or break a script
        text = f"{bug_text(error)} Please report it with {keep_details(error)}."
        return refuse(text, LightDiffusionError.exit_code, as_json=as_json)
