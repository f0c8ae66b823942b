"""Tests the record of a prompt file: finished pictures are not made again, and missing ones are remade identically."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.gallery.picture import Picture
from modules.generation.checks.model_files import checkpoint_path
from modules.generation.options import GenerationOptions, HiresOptions
from modules.generation.session import Session
from modules.tasks import prompt_record
from modules.tasks.prompt_record import PromptRecord, request_identity

REQUEST = GenerationOptions(prompt="a cat", number=2, batch=2, seed=10)


@pytest.fixture
def session(model_root: Path) -> Session:
    (model_root / "models" / "checkpoints" / "tiny.safetensors").write_bytes(b"never loaded here")
    return Session(ModelFolders(model_root), device="cpu")


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    return OutputFolder(tmp_path / "output")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[GenerationOptions]:
    """Records the generated requests; their pictures are blank."""
    requests: list[GenerationOptions] = []

    def generate(options: GenerationOptions, session: Session, **_: Any) -> Iterator[Picture]:
        requests.append(options)
        versions = 2 if options.hires is not None and options.hires.keep_first_pass else 1
        for _version in range(versions):
            for index in range(options.batch):
                if options.only in (None, index):
                    seed = (options.seed or 0) + index
                    image = Image.new("RGB", (8, 8), (seed % 256, 0, 0))
                    yield Picture(image=image, seed=seed, request_seed=options.seed or 0, parameters="x\nSteps: 1")

    monkeypatch.setattr(prompt_record, "generate", generate)
    return requests


def run(output: OutputFolder, session: Session, options: GenerationOptions = REQUEST) -> list[tuple[int, bool]]:
    """Returns the seed of each picture and whether this run made it, as a new run of the program would."""
    return [(saved.seed, saved.fresh) for saved in PromptRecord(output).pictures(options, session)]


def test_a_second_run_makes_nothing(output: OutputFolder, session: Session, made: list[GenerationOptions]) -> None:
    assert run(output, session) == [(10, True), (11, True), (12, True), (13, True)]
    assert [(request.seed, request.number, request.batch) for request in made] == [(10, 1, 2), (12, 1, 2)]
    assert run(output, session) == [(10, False), (11, False), (12, False), (13, False)]
    assert len(made) == 2 and output.last_seed() == 10


def test_only_the_batch_of_a_deleted_picture_is_made_again(
    output: OutputFolder, session: Session, made: list[GenerationOptions]
) -> None:
    *_, last = PromptRecord(output).pictures(REQUEST, session)
    last.path.unlink()
    assert run(output, session) == [(10, False), (11, False), (12, False), (13, True)]
    assert [request.seed for request in made] == [10, 12, 12]


def test_a_random_seed_is_remembered(output: OutputFolder, session: Session, made: list[GenerationOptions]) -> None:
    request = replace(REQUEST, seed=None, number=1)
    first = run(output, session, request)
    assert [seed for seed, _ in run(output, session, request)] == [seed for seed, _ in first]
    assert len(made) == 1


def test_one_picture_of_a_batch_and_both_versions(
    output: OutputFolder, session: Session, made: list[GenerationOptions]
) -> None:
    hires = HiresOptions(keep_first_pass=True)
    assert run(output, session, replace(REQUEST, only=3)) == [(13, True)]
    assert [(request.seed, request.only) for request in made] == [(12, 1)]
    assert [seed for seed, _ in run(output, session, replace(REQUEST, number=1, hires=hires))] == [10, 11, 10, 11]
    assert not any(fresh for _, fresh in run(output, session, replace(REQUEST, number=1, hires=hires)))


def test_stable_fast_is_the_same_request_and_a_changed_file_is_not(session: Session) -> None:
    before = request_identity(REQUEST, session.folders)
    assert request_identity(replace(REQUEST, stable_fast="full"), session.folders) == before
    assert request_identity(replace(REQUEST, steps=3), session.folders) != before
    checkpoint_path(session.folders, "tiny").write_bytes(b"another file")
    assert request_identity(REQUEST, session.folders) != before


def test_a_kill_between_a_picture_and_its_line_loses_nothing(
    output: OutputFolder, session: Session, made: list[GenerationOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = OutputFolder.save

    def save_and_die(folder: OutputFolder, picture: Any) -> Path:
        save(folder, picture)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(OutputFolder, "save", save_and_die)
        run(output, session)
    assert run(output, session) == [(10, False), (11, True), (12, True), (13, True)]
    assert len(list(output.folder.rglob("*.png"))) == 4


def test_another_file_with_the_same_seed_is_not_taken_for_it(
    output: OutputFolder, session: Session, made: list[GenerationOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(folder: OutputFolder, picture: Any) -> Path:
        other = folder.folder / "2026-11-28" / "00001-10.png"
        other.parent.mkdir(parents=True)
        other.write_bytes(b"another picture")
        raise KeyboardInterrupt

    output.folder.mkdir()
    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(OutputFolder, "save", die)
        run(output, session)
    assert run(output, session) == [(10, True), (11, True), (12, True), (13, True)]
