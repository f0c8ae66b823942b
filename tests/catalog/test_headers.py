"""Headers of strangers' files: whatever the bytes are, reading ends soon, with facts or with nothing."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from modules.catalog.headers import (
    HEADER_LIMIT,
    JSON_LIMIT,
    header_metadata,
    our_facts,
    read_header,
    read_json_object,
    shapes_in,
)
from modules.catalog.model_facts import model_facts
from tests.catalog.header_files import save_header

BAD_TEXTS = {
    "empty": b"",
    "no object": b"[1, 2]",
    "cut off": b'{"x": {"shape": [1',
    "no UTF-8": b'{"\xff\xfe": 1}',
    "not a number": b'{"x": NaN}',
    "nested": b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "huge number": b'{"x": ' + b"9" * 9000 + b"}",
}


def with_header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08", b"\xff" * 300, struct.pack("<Q", HEADER_LIMIT + 1) + b"{}", *map(with_header, BAD_TEXTS.values())],
)
def test_a_damaged_file_tells_nothing_and_is_said_to_be_damaged(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert read_header(path) == {} and header_metadata(path) == {}
    assert model_facts(path, "loras").details == ("damaged",)


def test_a_header_is_read_only_to_its_limit_and_from_files_only(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**63 - 1))
        file.truncate(2**33)  # a sparse file: reading all of it would take minutes
    assert read_header(path) == {}
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert read_header(tmp_path / "pipe.safetensors") == {}, "reading a pipe would never end"


@pytest.mark.parametrize("shape", [None, 7, "x", [1.5], [True], [-1], [2**63], [1] * 100, [[1]], {"a": 1}])
def test_a_shape_of_another_kind_is_left_out(tmp_path: Path, shape: object) -> None:
    name = "lora_unet_x_attn2_to_k.lora_down.weight"
    header = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}, f"2{name}": 5}
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(json.dumps(header).encode()))
    facts = model_facts(path, "loras")
    assert (facts.width, facts.family) == (None, "")


def test_shapes_are_those_of_the_named_tensors(tmp_path: Path) -> None:
    import re

    header = read_header(save_header(tmp_path / "x.safetensors", shapes={"a.weight": [4, 768], "b": [1]}))
    assert list(shapes_in(header, re.compile("weight$"))) == [(4, 768)]


@pytest.mark.parametrize("metadata", [7, ["a"], "text", None])
def test_metadata_of_another_kind_counts_as_none(tmp_path: Path, metadata: object) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(json.dumps({"__metadata__": metadata, "x": 1}).encode()))
    assert header_metadata(path) == {}
    assert our_facts({"lightdiffusion": metadata}) == {}


@pytest.mark.parametrize("data", [*BAD_TEXTS.values(), b'{"x": "' + b"y" * JSON_LIMIT + b'"}'])
def test_a_damaged_or_endless_json_file_counts_as_absent(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    assert read_json_object(path) == {} and read_json_object(tmp_path) == {}
