"""Tables of choices: written, read, merged; damaged files."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from modules.stable_fast import compile_module
from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.store import tables
from modules.stable_fast.store.cache import cache_folder
from tests.stable_fast.store.table_files import RTX_4090, table

pytestmark = pytest.mark.own_cache


def test_results_come_back_from_disk(tmp_path):
    path = tables.choices_path(tmp_path, {"gpu": "NVIDIA H200", "torch": "2.11.0+cu130"})
    assert path.name == "tuned-NVIDIA_H200_2.11.0_cu130.json"
    first = tables.Measured("conv", (2, 320, True, "none", "float16"), "cudnn", {"cudnn": 0.1})
    second = tables.Measured("linear", (1,), "cublas", {})
    tables.write_choices(path, {}, [first])
    tables.write_choices(path, {}, [second])
    assert tables.read_choices(path) == [first, second]
    again = tables.Measured(first.op, first.key, "triton", {})
    tables.write_choices(path, {}, [again])
    assert tables.read_choices(path) == [again, second]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary files


ROWS = (
    [1], 5, ["op", [[1]], "a", {}], ["op", [None], "a", {}], ["op", 1, "a", {}], [["op"], [1], "a", {}],
    ["op", [1], 7, {}], ["op", [1], "a", {}, 5], ["op", [1], "a", [1, 2]], ["op", [1], "a", {"a": "fast"}],
    ["op", [1], "a", {"a": float("nan")}],
)  # fmt: skip


@pytest.mark.parametrize("content", [
    "", "{", "[]", "[" * 100_000, '{"format": 1}', '{"format": 1, "choices": 5}',
    *(json.dumps({"format": 1, "choices": [row]}) for row in ROWS),
])  # fmt: skip
def test_a_damaged_file_is_reported_and_ignored(content, tmp_path, caplog):
    path = tmp_path / "tuned.json"
    path.write_text(content)
    assert tables.read_choices(path) == []
    assert "will be made again" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tuned.json")
    assert tables.read_choices(tmp_path / "tuned.json") == []


def test_a_file_of_another_format_is_ignored(tmp_path):
    path = tmp_path / "tuned.json"
    path.write_text(json.dumps({"format": 0, "choices": [["op", [1], "a", {}]]}))
    assert tables.read_choices(path) == []


def test_own_results_go_before_shipped_ones(tmp_path, monkeypatch):
    described = {"chip": "sm90-132", "gpu": "NVIDIA H200", "torch": "2.11"}
    monkeypatch.setattr(tables, "environment", lambda device: described)
    monkeypatch.setattr(tables, "SHIPPED", tmp_path / "shipped")
    tables.write_choices(tmp_path / "shipped" / "sm90-132.json", {}, [
        tables.Measured("op", (1,), "shipped", {}), tables.Measured("op", (2,), "shipped", {}),
    ])  # fmt: skip
    tables.write_choices(tables.choices_path(tmp_path, described), {}, [tables.Measured("op", (1,), "own", {})])
    choices = ImplementationChoices()
    assert tables.load_choices(torch.device("cuda"), tmp_path, choices) == 2
    assert choices.chosen == {("op", (1,)): "own", ("op", (2,)): "shipped"}


def picked(choices, *sizes):
    offered = dict.fromkeys(("default", "own", "first", "second"), print)
    return [choices.pick("op", (size,), offered, "default", ()) for size in sizes]


def test_an_imported_table_goes_before_own_results_until_another_is_imported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tables, "environment", lambda device: RTX_4090)
    tables.write_choices(tables.choices_path(tmp_path, RTX_4090), {}, [tables.Measured("op", (1,), "own")])
    first = table(tables.Measured("op", (1,), "first"), tables.Measured("op", (2,), "first"))
    second = table(tables.Measured("op", (1,), "second"), tables.Measured("op", (3,), "removed since"))
    other_card = table(tables.Measured("op", (1,), "first"), chip="sm86-82", gpu="NVIDIA GeForce RTX 3090")
    choices, gpu = ImplementationChoices(), torch.device("cuda")
    for imported, expected in (
        (first, ["first", "first", "default"]),
        (second, ["second", "default", "default"]),
        (None, ["own", "default", "default"]),
        (other_card, ["own", "default", "default"]),
    ):
        assert "has no effect" not in caplog.text
        tables.load_choices(gpu, tmp_path, choices, imported)
        assert picked(choices, 1, 2, 3) == expected
    assert "has no effect, since it was measured on NVIDIA GeForce RTX 3090 (sm86-82)" in caplog.text


def test_near_shapes_follow_an_imported_table_while_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "environment", lambda device: RTX_4090)
    fast = table(tables.Measured("op", (64,), "first", {"first": 1.0, "second": 2.0}))
    wrong = table(tables.Measured("op", (64,), "second", {"first": 1.0, "second": 2.0}))  # first gave a wrong result
    choices, gpu = ImplementationChoices(), torch.device("cuda")
    for imported, expected in ((fast, "first"), (wrong, "second"), (None, "default")):
        tables.load_choices(gpu, tmp_path, choices, imported)
        assert picked(choices, 65) == [expected]


def ship(folder, name, **times):
    tables.write_choices(
        folder / name, {}, [tables.Measured("op", (1024, "float16"), min(times, key=times.get), times)]
    )


def predicted_by(folder, **facts):
    """What is predicted on a card with no tables of its own."""
    choices, described = ImplementationChoices(), RTX_4090 | facts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "environment", lambda device: described)
        patch.setattr(tables, "SHIPPED", folder)
        assert tables.load_choices(torch.device("cuda"), folder / "own", choices) == 0
    offered = dict.fromkeys(("default", "tiles", "cublaslt_1", "cublaslt_3"), print)
    return [choices.pick("op", (rows, "float16"), offered, "default", ()) for rows in (1024, 1500)]


def test_a_card_without_a_table_has_that_of_its_class(tmp_path):
    assert predicted_by(tmp_path) == ["default", "default"]
    ship(tmp_path, "class-mma.json", tiles=1.0, default=2.0)
    ship(tmp_path, "sm90-132.json", tiles=2.0, default=1.0, cublaslt_1=0.5)
    assert predicted_by(tmp_path) == ["tiles", "tiles"]
    assert predicted_by(tmp_path, chip="sm120-170") == ["tiles", "tiles"]
    assert predicted_by(tmp_path, chip="sm75-68") == predicted_by(tmp_path, chip="sm100-148") == ["default", "default"]
    assert predicted_by(tmp_path, chip="sm90-114") == ["cublaslt_1", "cublaslt_1"]


def test_the_nearest_card_of_the_class_goes_before_the_class(tmp_path):
    ship(tmp_path, "class-mma.json", tiles=1.0, default=2.0)
    ship(tmp_path, "sm86-30.json", tiles=2.0, default=1.0)
    ship(tmp_path, "sm89-120.json", default=2.0, cublaslt_1=1.0)
    assert predicted_by(tmp_path) == ["cublaslt_1", "cublaslt_1"]
    assert predicted_by(tmp_path, chip="sm86-28") == ["default", "default"]


def test_a_shipped_table_does_not_hide_what_others_measured(tmp_path):
    ship(tmp_path, "class-mma.json", tiles=1.0, default=2.0)
    rows = [tables.Measured("op", (16, "float16"), "default", {"tiles": 2.0, "default": 1.0})]
    tables.write_choices(tmp_path / "sm89-128.json", {}, rows)
    choices = ImplementationChoices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "environment", lambda device: RTX_4090)
        patch.setattr(tables, "SHIPPED", tmp_path)
        assert tables.load_choices(torch.device("cuda"), tmp_path / "own", choices) == 1
    offered = dict.fromkeys(("default", "tiles"), print)
    assert choices.pick("op", (16, "float16"), offered, "tiles", ()) == "default"
    assert [choices.pick("op", (rows, "float16"), offered, "default", ()) for rows in (1024, 900)] == ["tiles"] * 2


def test_a_place_in_a_librarys_list_tells_nothing_of_another_card(tmp_path):
    ship(tmp_path, "class-mma.json", cublaslt_3=0.5, cublaslt_1=1.0, tiles=2.0)
    assert predicted_by(tmp_path) == ["cublaslt_1", "cublaslt_1"]


def test_own_results_go_before_those_of_the_class(tmp_path):
    ship(tmp_path, "class-mma.json", tiles=1.0, default=2.0)
    own = tables.choices_path(tmp_path / "own", RTX_4090)
    tables.write_choices(own, {}, [tables.Measured("op", (512, "float16"), "default", {"tiles": 9.0, "default": 1.0})])
    choices = ImplementationChoices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "environment", lambda device: RTX_4090)
        patch.setattr(tables, "SHIPPED", tmp_path)
        assert tables.load_choices(torch.device("cuda"), tmp_path / "own", choices) == 1
    offered = dict.fromkeys(("default", "tiles"), print)
    assert [choices.pick("op", (rows, "float16"), offered, "tiles", ()) for rows in (512, 520)] == ["default"] * 2
    assert choices.pick("op", (1024, "float16"), offered, "default", ()) == "tiles"  # of this shape it knows more


def test_a_shipped_table_is_written_as_it_was_read():
    for path in tables.SHIPPED.glob("*.json"):
        content = path.read_text(encoding="utf-8")
        assert tables.table_text(tables.parse_table(content)) == content


def test_a_saved_graph_has_no_choices_in_it():
    """So no table makes it stale: it is found by a key without tables."""
    parts = (nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(128, 8))
    compile_module(nn.Sequential(*parts).eval(), [torch.randn(1, 8, 4, 4)])
    (graph,) = (cache_folder() / "graphs").glob("*.json")
    assert all(op in graph.read_text() for op in ("group_norm_silu", "conv2d_epilogue", "linear_epilogue"))
    shipped = tables.read_choices(tables.SHIPPED / "sm90-132.json")
    names = {name for row in shipped for name in (row.name, *row.milliseconds)}
    assert len(names) > 40 and not [name for name in names if name in graph.read_text(encoding="utf-8")]
