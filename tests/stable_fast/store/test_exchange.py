"""Tables that people exchange: exported, read with every check, and used on cards like their own only."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.core.errors import OptionsError
from modules.stable_fast import compile_module, compile_pipeline
from modules.stable_fast.store import exchange, tables
from modules.stable_fast.store.cache import cache_folder
from modules.stable_fast.store.ready import Effort
from modules.stable_fast.store.tables import Measured, choices_path, write_choices
from tests.stable_fast.store.table_files import LINEAR, RTX_4090, save_table, table

pytestmark = pytest.mark.own_cache

GPU = torch.device("cuda")


def put_card(monkeypatch: pytest.MonkeyPatch, **facts: str) -> None:
    for module in (tables, exchange):
        monkeypatch.setattr(module, "environment", lambda device: RTX_4090 | facts)


def test_what_was_tuned_here_comes_back_from_an_exported_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_card(monkeypatch)
    other = RTX_4090 | {"torch": "2.12.0"}
    write_choices(choices_path(cache_folder(), RTX_4090), RTX_4090, [LINEAR])
    write_choices(choices_path(cache_folder(), other), other, [Measured("conv2d", (1,), "cudnn", {"cudnn": 1.0})])
    exchange.export_table(tmp_path / "mine.json", GPU)
    read = exchange.read_table(tmp_path / "mine.json")
    assert read.environment == RTX_4090 and read.choices == (LINEAR,), "of these versions only"


def test_without_results_there_is_nothing_to_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_card(monkeypatch)
    with pytest.raises(OptionsError, match=r"RTX 4090 with torch 2\.13.*--stable-fast-tune 30 first"):
        exchange.export_table(tmp_path / "mine.json", GPU)
    assert not list(tmp_path.iterdir())


def changed(**values: Any) -> bytes:
    content = json.loads(tables.table_text(table()))
    return json.dumps({**content, **values}).encode()


ROW = ["linear_epilogue", [1], "cublas", {"cublas": 0.1}]
BAD = {
    "an empty file": (b"", "not valid JSON"),
    "half a file": (changed()[:-9], "not valid JSON"),
    "a list": (b"[]", "not a JSON object"),
    "settings": (b'{"steps": 20}', "format"),
    "a later format": (changed(format=2), "its format is 2, and this version reads 1"),
    "a true format": (changed(format=True), "format"),
    "a pickle": (pickle.dumps(print), "not UTF-8"),
    "no card": (changed(environment={}), "chip, gpu, torch, triton, cudnn"),
    "no version": (changed(environment=RTX_4090 | {"torch": ""}), "with which torch"),
    "a card that is a number": (changed(environment=RTX_4090 | {"chip": 89}), "chip"),
    "a card that is a path": (changed(environment=RTX_4090 | {"chip": "../../models/sm89-128"}), "chip"),
    "a GPU of two lines": (changed(environment=RTX_4090 | {"gpu": "\x1b[2Jnone\nDone"}), "gpu: .* short line"),
    "a GPU of a thousand words": (changed(environment=RTX_4090 | {"gpu": "RTX " * 1000}), "gpu: .* short line"),
    "no choices": (changed(choices=[]), "no choices"),
    "choices by name": (changed(choices={"a": ROW}), "not a table"),
    "a short row": (changed(choices=[ROW[:3]]), "a row"),
    "a long row": (changed(choices=[[*ROW, "os.system"]]), "a row"),
    "a name that is a list": (changed(choices=[[*ROW[:2], ["os", "system"], {}]]), "name"),
    "a deep key": (changed(choices=[["op", [[1]], "cublas", {}]]), "key"),
    "code for an op": (changed(choices=[["__import__('os')", *ROW[1:]]]), "not the name of a kernel"),
    "code for a kernel": (changed(choices=[[*ROW[:2], "print(1)", {}]]), "not the name of a kernel"),
    "code among the times": (changed(choices=[[*ROW[:3], {"a;b": 0.1}]]), "not the name of a kernel"),
    "a time before its start": (changed(choices=[[*ROW[:3], {"cublas": -0.1}]]), "negative"),
    "a time in words": (changed(choices=[[*ROW[:3], {"cublas": "fast"}]]), "time"),
    "no number": (changed(choices=[[*ROW[:3], {"cublas": float("nan")}]]), "NaN"),
}


@pytest.mark.parametrize("what", BAD)
def test_any_other_file_is_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    content, reason = BAD[what]
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(OptionsError, match=reason) as raised:
        exchange.read_table(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.json"):
        with pytest.raises(OptionsError, match="The table"):
            exchange.read_table(path)


def test_another_cards_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    put_card(monkeypatch, chip="sm86-82", gpu="NVIDIA GeForce RTX 3090")
    with pytest.raises(OptionsError, match=r"RTX 4090 \(sm89-128\), and this GPU is .*RTX 3090 \(sm86-82\)"):
        exchange.check_card(table(), GPU)


@pytest.mark.parametrize(("facts", "told"), [
    ({}, []),
    ({"torch": "2.11.0", "cudnn": "91000"}, ["torch 2.13.0+cu130, cudnn 91900", "torch 2.11.0, cudnn 91000"]),
    ({"gpu": "NVIDIA GeForce RTX 4090 Laptop GPU"}, ["gpu NVIDIA GeForce RTX 4090,", "Laptop GPU"]),
])  # fmt: skip
def test_other_versions_are_told(
    facts: dict[str, str], told: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_card(monkeypatch, **facts)
    exchange.check_card(table(), GPU)
    assert len(caplog.records) == bool(told) and all(text in caplog.text for text in told)


class Pipe:
    """A pipeline of one network."""

    def __init__(self, network: nn.Module) -> None:
        self.components = {"network": network}

    def __call__(self, x: Tensor) -> Tensor:
        return self.components["network"](x)


def accelerated(kind: str, network: nn.Module, x: Tensor, file: Path | str) -> Callable[[Tensor], Tensor]:
    """The network, or a pipeline of it, with a table."""
    if kind == "module":
        return compile_module(network, [x], table=file)
    pipe = Pipe(network)
    compile_pipeline(pipe, table=file)
    return pipe


@pytest.mark.parametrize("kind", ["module", "pipeline"])
@torch.no_grad()
def test_other_peoples_networks_take_a_table(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    readied: list[Any] = []
    monkeypatch.setattr(
        "modules.stable_fast.engine.make_ready", lambda *_, table, **__: readied.append(table) or Effort()
    )
    network, x = nn.Linear(8, 8).eval(), torch.randn(2, 8)
    accelerated(kind, network, x, save_table(tmp_path / "table.json"))(x)
    assert [each.choices for each in readied] == [(LINEAR,)]
    assert "The table of kernels has no effect on cpu" in caplog.text
    with pytest.raises(OptionsError, match="cannot be read"):
        accelerated(kind, nn.Linear(8, 8).eval(), x, str(tmp_path / "gone.json"))
