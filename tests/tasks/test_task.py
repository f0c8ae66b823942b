"""A task is plain data: it can be pickled, compared, and created without torch."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from modules.generation.options import ControlChoice, GenerationOptions, HiresOptions, InitImage, LoraChoice
from modules.tasks.axes import read_axis
from modules.tasks.task import Compare, DrawHint, Enlarge, FreeMemory, MakeGrid, MakePictures, Task

FULL = GenerationOptions(
    prompt="a cat",
    loras=(LoraChoice(name="ink", strength=0.5),),
    controls=(ControlChoice(name="edges", image=Path("edges.png")),),
    init=InitImage(image=Path("photo.png"), mask=Path("mask.png")),
    hires=HiresOptions(scale=1.5),
)
TASKS: tuple[Task, ...] = (
    MakePictures(options=FULL),
    Compare(options=FULL),
    MakeGrid(options=FULL, across=read_axis("cfg", "4, 7"), down=read_axis("sampler", "euler, ddim")),
    Enlarge(images=(Path("photo.png"),), width=64, height=64),
    DrawHint(image=Path("photo.png"), width=64, height=64, preprocessor="canny"),
    FreeMemory(),
)
OF_TASKS = ("modules.tasks.task", "modules.tasks.axes", "modules.generation.options", "pathlib", "pathlib._local")


class NamesOnly(pickle.Unpickler):
    """Records the module of everything referenced by name in the data."""

    modules: set[str]

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        self.modules.add(module_name)
        return super().find_class(module_name, global_name)


def test_the_tasks_here_are_all_kinds() -> None:
    assert {type(task) for task in TASKS} == set(get_args(Task))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_it_survives_pickle_and_holds_options_and_plain_values_only(task: Task) -> None:
    reader = NamesOnly(io.BytesIO(pickle.dumps(task)))
    reader.modules = set()
    assert reader.load() == task
    assert reader.modules <= set(OF_TASKS)


def test_making_one_needs_neither_torch_nor_pillow() -> None:
    code = "import sys, modules.tasks.task, modules.tasks.queue; sys.exit(bool({'torch', 'PIL'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
