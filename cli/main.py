"""Runs the command line: builds GenerationOptions, saves pictures, and prints their paths on standard output."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.arguments import parse_arguments
from cli.console import ProgressBar, RunContext, SessionRun, ending, stop_on_interrupt
from cli.listing import list_names
from cli.packages import missing_package
from cli.report_file import check_report_file, write_report
from cli.requests import Request, build_requests, check_together
from cli.runs.upscaling import run_upscale
from cli.streams import log_to_errors, tell, warn
from cli.table_file import run_export
from modules.core.errors import DeviceError, LightDiffusionError, OutputError, bug_text
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken
from modules.core.threads import let_threads_sleep
from modules.version import VERSION

if TYPE_CHECKING:
    from cli.runs.prompt_batch import CheckedLine
    from modules.generation.options import GenerationOptions
    from modules.generation.session import Session

NOBODY_READS = 141  # the exit code in shells for a program whose output pipe was closed


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Makes and saves the pictures; returns what --json prints."""
    from cli.runs.cluster import check_cluster, check_prompts_only, run_on_cluster
    from cli.runs.prompt_batch import read_lines, refuse_lines
    from modules.generation.checks.request import check_request

    check_cluster(given)
    check_prompts_only(given)
    folders = ModelFolders()
    lines = read_lines(given, folders) if "prompts" in given else []
    if bad := [line for line in lines if line.error is not None]:
        return refuse_lines(bad, given)
    requests = [] if lines else build_requests(given)
    check_together(given, requests)
    for request in requests:
        check_request(request.options, folders)
    tell_offers([*requests, *(request for line in lines for request in line.requests)], folders)
    cancel, bar = CancelToken(), ProgressBar(quiet=given.get("quiet", False))
    from tqdm.contrib.logging import logging_redirect_tqdm

    with stop_on_interrupt(cancel, bar), logging_redirect_tqdm():
        from modules.gallery.output import OutputFolder

        output = OutputFolder(given.get("output_dir"))
        if given.get("reuse_seed"):
            seed = output.last_seed()
            requests = [replace(request, options=replace(request.options, seed=seed)) for request in requests]
        output.check_writable()
        check_report_file(given)
        shared = RunContext(given=given, output=output, bar=bar, cancel=cancel)
        try:
            if "cluster" in given:
                return run_on_cluster(lines, folders, shared)
            return run_here(lines, requests, folders, shared)
        finally:
            bar.close()


def run_here(
    lines: Sequence[CheckedLine], requests: Sequence[Request], folders: ModelFolders, shared: RunContext
) -> dict[str, Any]:
    """Makes the pictures in this process; returns what --json prints."""
    from cli.runs.prompt_batch import run_prompts
    from modules.generation.session import Session
    from modules.stable_fast.store.exchange import read_table

    given = shared.given
    session = Session(
        folders,
        device=given.get("device"),
        dtype=given.get("dtype"),
        tuning_seconds=given.get("stable_fast_tune", 0.0),
        table=read_table(given["stable_fast_table"]) if "stable_fast_table" in given else None,
        memory=given.get("memory"),
    )
    shared.cancel.check()  # if Ctrl-C was pressed during the imports
    began = time.perf_counter()
    run = SessionRun(**vars(shared), session=session)
    result = run_prompts(lines, run) if lines else run_requests(requests, run)
    result["seconds"] = round(time.perf_counter() - began, 3)
    if result.get("exit_code") == DeviceError.exit_code:  # measured times are still on the broken GPU
        return result
    told = tell_stable_fast(given, session)
    return result | {name: value for name, value in told.items() if name not in result}  # keeps the first error


def tell_offers(requests: Sequence[Request], folders: ModelFolders) -> None:
    """Prints the settings that few-step models in the requests need, each sentence once."""
    from modules.generation.few_steps.offers import offer_of

    for offer in dict.fromkeys(offer_of(request.options, folders) for request in requests):
        if offer is not None:
            warn(offer)


def run_requests(requests: Sequence[Request], run: SessionRun) -> dict[str, Any]:
    """Makes the pictures of each request; an error after the first picture is reported along with the finished ones."""
    images: list[dict[str, Any]] = []
    answer: dict[str, Any] = {"images": images}
    try:
        for request in requests:
            first = len(images)
            if run.given.get("compare"):
                answer["compare"] = make_comparison(request.options, run, images)
            else:
                make_pictures(request.options, run, images)
            if request.picture is not None and len(images) > first:
                tell_changed_facts(run.given, request.picture, Path(images[first]["path"]))
    except LightDiffusionError as error:
        if not images:
            raise
        run.bar.close()
        text = ending(error, len(images))
        warn(f"error: {text}")
        answer |= {"error": text, "exit_code": error.exit_code}
    return answer


def make_pictures(options: GenerationOptions, run: SessionRun, images: list[dict[str, Any]]) -> None:
    """Adds each picture to `images` as soon as it is saved."""
    from modules.generation.text_to_image import generate

    for picture in generate(options, run.session, on_progress=run.bar, cancel=run.cancel):
        path = run.output.save(picture)
        images.append({"path": str(path), "seed": picture.seed})
        run.say_path(path)


def make_comparison(options: GenerationOptions, run: SessionRun, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Saves one picture with both halves, and the metadata of the accelerated half."""
    from modules.tasks.compare import compare

    comparison = compare(options, run.session, on_progress=run.bar, cancel=run.cancel)
    picture = comparison.accelerated.picture
    path = run.output.save(replace(picture, image=comparison.image))
    images.append({"path": str(path), "seed": picture.seed})
    run.say(comparison.to_text())
    run.say_path(path)
    return comparison.to_dict()


def tell_stable_fast(given: Mapping[str, Any], session: Session) -> dict[str, Any]:
    """Prints the status line and writes the requested report; a failure here does not hide the pictures."""
    report = session.stable_fast_report
    if report is None:
        if "stable_fast_report" in given:
            warn("No report was written: nothing was made with Stable-Fast.")
        return {}
    warn(report.status_line())
    level, reason = report.in_force
    answer: dict[str, Any] = {"stable_fast": {"status": report.status_line(), "level": level, "reason": reason}}
    if "stable_fast_report" in given:
        try:
            write_report(given["stable_fast_report"], report)
        except OutputError as error:
            warn(f"error: {error}")
            answer |= {"error": str(error), "exit_code": error.exit_code}
    return answer


def tell_changed_facts(given: Mapping[str, Any], picture: Path, made: Path) -> None:
    """Warns if a remade picture may differ from the original although no option was changed."""
    from modules.generation.metadata.write import changed_facts

    asked = {"Model hash": "checkpoint", "Precision": "dtype"}
    changed = [name for name in changed_facts(picture, made) if asked.get(name) not in given]
    if changed:
        names = ", ".join(changed)
        warn(f"{picture.name} was made with a different {names}: expect differences.")


def refuse(text: str, code: int, *, as_json: bool) -> int:
    """Reports an error in one line for people and, on request, as JSON for scripts; returns the exit code."""
    if as_json:
        with suppress(OutputError, BrokenPipeError):  # the line for people is printed anyway
            tell(json.dumps({"error": text, "exit_code": code}))
    warn(f"error: {text}")
    return code


def keep_details(error: Exception) -> str:
    """Writes the traceback to a file, and returns a phrase with its location."""
    details = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lightdiffusion-error-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write(details)
    except OSError:  # the disk may be full
        sys.stderr.write(details)
        return "the lines above"
    return f"the details in {file.name}"


def run_doctor(given: Mapping[str, Any]) -> int:
    """Prints Stable-Fast's diagnosis and how the checkpoint fits into memory; returns the exit code."""
    from modules.generation.memory.what_fits import what_fits
    from modules.stable_fast.doctor.diagnose import main as diagnose

    memory = what_fits(
        given.get("checkpoint"), folders=ModelFolders(), device_name=given.get("device"), dtype_name=given.get("dtype")
    )
    return diagnose(["--json"] if given.get("json") else [], lambda text: tell(text.rstrip("\n")), memory=memory)


def answer(arguments: Sequence[str]) -> int:
    """Runs the command and returns the exit code. Raises LightDiffusionError."""
    given = parse_arguments(arguments)
    if given.get("version"):
        tell(f"LightDiffusion-Next {VERSION}")
        return 0
    if "list" in given:
        list_names(given["list"])
        return 0
    if given.get("doctor"):
        return run_doctor(given)
    if "stable_fast_export" in given:
        return run_export(given)
    result = run_upscale(given) if "upscale" in given else run(given)
    if given.get("json"):
        images = result["images"]
        tell(json.dumps(result), kept=Path(images[0]["path"]).parent if images else None)
    return result.get("exit_code", 0)


def main(argv: Sequence[str] | None = None) -> int:
    let_threads_sleep()
    log_to_errors()
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments  # needed before the other arguments are parsed
    try:
        return answer(arguments)
    except LightDiffusionError as error:
        return refuse(str(error), error.exit_code, as_json=as_json)
    except BrokenPipeError:  # for example with `| head -1`
        return NOBODY_READS
    except Exception as error:  # noqa: BLE001  # our own bugs must not fill the terminal or break scripts
        missing = missing_package(error, "pipeline")
        if missing is not None:
            return refuse(str(missing), missing.exit_code, as_json=as_json)
        text = f"{bug_text(error)} Please report it with {keep_details(error)}."
        return refuse(text, LightDiffusionError.exit_code, as_json=as_json)
