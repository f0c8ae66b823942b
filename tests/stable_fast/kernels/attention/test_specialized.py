"""Attention with specialised warps: results on a Hopper GPU; elsewhere, compiling for Hopper without spilling."""

from __future__ import annotations

import re
import subprocess

import pytest
import torch

from modules.stable_fast.kernels.attention import specialized
from modules.stable_fast.kernels.attention.attention_packed import (
    attention_packed_kv_reference,
    attention_packed_qkv_reference,
)
from modules.stable_fast.kernels.attention.specialized import SPECIALIZED_TILES, head_width, launch_specialized
from modules.stable_fast.kernels.devices import is_hopper
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.triton_import import HAS_GLUON, INTERPRETED
from tests.stable_fast.kernels.kernel_device import Maker, assert_near

pytestmark = pytest.mark.skipif(INTERPRETED or not HAS_GLUON, reason="Gluon kernels are compiled only")
in_tiles = pytest.mark.parametrize("tile", SPECIALIZED_TILES, ids=[t.name for t in SPECIALIZED_TILES])
on_hopper = pytest.mark.skipif(
    not (torch.cuda.is_available() and is_hopper(torch.empty(0, device="cuda"))), reason="needs a Hopper GPU"
)


def compiled(tile, size, *, even):
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon._runtime import GluonASTSource

    kernel, width = specialized._specialized_kernel, head_width(size)
    launch_registers, registers = tile.registers
    k1, k2 = specialized.split_head(size)
    constants = {
        "D": size, "BK": tile.keys, "W": width, "K1": k1, "K2": k2, "STAGES": tile.stages(width), "EVEN_S": even,
        "GROUPS": tile.groups, "TURNS": tile.turns, "REGISTERS": registers,
    }  # fmt: skip
    layout = gl.NVMMASharedLayout(128, 16, 4)
    boxes = {"q": specialized.QUERIES, "k": tile.keys, "v": tile.keys}
    signature = {name: "constexpr" if name in constants else "i32" for name in kernel.arg_names}
    signature |= {name: f"tensordesc<fp16[1, 1, {rows}, {width}],{layout!r}>" for name, rows in boxes.items()}
    source = GluonASTSource(kernel, signature | {"y_ptr": "*fp16", "scale": "fp32"}, constants)
    return compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "maxnreg": launch_registers})


@in_tiles
@pytest.mark.parametrize("size,even", [(40, True), (80, False)])
def test_compiles_for_hopper_without_spilling(tile, size, even, tmp_path):
    from triton import knobs

    if not tile.fits(head_width(size)):
        pytest.skip("refused at this size")
    binary = tmp_path / "kernel.cubin"
    result = compiled(tile, size, even=even)
    binary.write_bytes(result.asm["cubin"])
    usage = subprocess.check_output([knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)], text=True)
    assert re.findall(r"STACK:(\d+)", usage) == ["0"]
    instructions = subprocess.check_output([knobs.nvidia.cuobjdump.path, "-sass", str(binary)], text=True)
    # Four waits: for the first scores, for scores and for values in the loop, and for the last values. If registers ran
    # out, the assembler would make each product wait for the previous product.
    assert instructions.count("WARPGROUP.DEPBAR") <= 4 * tile.groups
    assert result.metadata.shared <= 227 * 1024
    assert "wgmma" in result.asm["ptx"] and "cp.async.bulk.tensor.4d" in result.asm["ptx"]


def test_registers_are_shared_out_within_what_a_multiprocessor_has():
    for tile in SPECIALIZED_TILES:
        launch, attending = tile.registers
        assert launch % 8 == attending % 8 == 0
        assert 128 * (tile.groups + 1) * launch <= 65536
        assert tile.groups * attending + specialized.LOADER_REGISTERS <= (tile.groups + 1) * launch


@pytest.mark.gpu
@on_hopper
@in_tiles
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("heads,size,length", [(2, 40, 1024), (1, 64, 33), (3, 40, 700), (2, 80, 300), (1, 8, 129)])
def test_self_attention(heads, size, length, dtype, tile):
    qkv = Maker("cuda", dtype).rows(2, length, 3 * heads * size)
    if not tile.fits(head_width(size)):
        pytest.skip("refused at this size")
    y = launch_specialized(*qkv.unflatten(-1, (3, heads, size)).unbind(2), tile)
    assert_near(y, attention_packed_qkv_reference(qkv.double(), heads, False), slack=2)


@pytest.mark.gpu
@on_hopper
@in_tiles
def test_cross_attention_and_large_scores(tile):
    make = Maker("cuda", torch.float16)
    q, kv = make.rows(2, 300, 80, scale=30.0), make.rows(2, 77, 160, scale=30.0)
    y = launch_specialized(q.unflatten(-1, (2, 40)), *kv.unflatten(-1, (2, 2, 40)).unbind(2), tile)
    assert torch.isfinite(y).all()
    assert_near(y, attention_packed_kv_reference(q.double(), kv.double(), 2, False), slack=4)


@in_tiles
def test_other_machines_are_refused(tile):
    q = torch.zeros(1, 4, 1, 64)
    with pytest.raises(Unsupported, match="Hopper"):
        launch_specialized(q, q, q, tile)
