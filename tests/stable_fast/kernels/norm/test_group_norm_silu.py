"""GroupNorm kernels against float64, launched in each way."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.norm import group_norm_kernels, group_norm_silu
from tests.stable_fast.kernels.kernel_device import Maker, assert_near, doubled, in_dtypes, on_devices

LAUNCHES = [group_norm_kernels.launch_one_kernel, group_norm_kernels.launch_two_kernels]
# batch, channels, height, width, groups: UNet ratios, a group of 10 channels, odd channels, odd sizes, one group. Then
# groups that cross the apply kernel's 64-channel blocks or exceed the moments kernel's 128, and the VAE's small groups.
SHAPES = [
    (2, 40, 8, 8, 4), (1, 60, 5, 7, 2), (8, 15, 3, 3, 3), (3, 24, 16, 4, 1), (2, 64, 2, 2, 32),
    (1, 320, 5, 4, 32), (2, 300, 3, 5, 2), (1, 128, 9, 7, 32),
]  # fmt: skip


@on_devices
@in_dtypes
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_group_norm_silu(launch, shape, dtype, device):
    batch, channels, height, width, groups = shape
    make = Maker(device, dtype)
    x, weight, bias = make.image(batch, channels, height, width), make.rows(channels), make.rows(channels)
    y = launch(x, None, weight, bias, groups, 1e-5, True)
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.silu(F.group_norm(dx, groups, dw, db, 1e-5)))
    assert y.is_contiguous(memory_format=torch.channels_last)


@on_devices
@in_dtypes
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("split", [20, 26, 33])  # between two groups, inside a group, inside 16 bytes
def test_group_norm_of_a_virtual_concatenation(launch, split, dtype, device):
    make = Maker(device, dtype)
    a, b = make.image(2, split, 6, 5), make.image(2, 40 - split, 6, 5)
    weight, bias = make.rows(40), make.rows(40)
    y = launch(a, b, weight, bias, 4, 1e-6, False)
    da, db, dw, dbias = doubled(a, b, weight, bias)
    assert_near(y, F.group_norm(torch.cat((da, db), 1), 4, dw, dbias, 1e-6))


@on_devices
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("channels_a", [320, 640])
def test_unet_concatenation_of_groups_of_30_channels(launch, channels_a, device):
    """Neither 320 nor 640 is a multiple of 30, so one group has channels from both inputs."""
    make = Maker(device, torch.float16)
    a, b = make.image(1, channels_a, 4, 3), make.image(1, 960 - channels_a, 4, 3)
    weight, bias = make.rows(960), make.rows(960)
    y = launch(a, b, weight, bias, 32, 1e-5, True)
    da, db, dw, dbias = doubled(a, b, weight, bias)
    assert_near(y, F.silu(F.group_norm(torch.cat((da, db), 1), 32, dw, dbias, 1e-5)))


@on_devices
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_large_mean_costs_no_precision(launch, device):
    """A plain sum of squares would lose all digits here, since the variance is a millionth of the squared mean."""
    make = Maker(device, torch.float32)
    x = make.image(2, 8, 40, 40) + 1000.0
    ones = torch.ones(8, device=device)
    y = launch(x, None, ones, 0 * ones, 2, 1e-5, False)
    assert_near(y, F.group_norm(x.double(), 2), slack=10)


@on_devices
@pytest.mark.parametrize("launch", LAUNCHES)
def test_the_pivot_may_be_an_outlier(launch, device):
    """The kernels subtract the first pixel before summing. Here it is a thousand deviations away from the others."""
    make = Maker(device, torch.float32)
    x = make.image(1, 8, 40, 40)
    x[:, :, 0, 0] += 1000.0
    ones = torch.ones(8, device=device)
    y = launch(x, None, ones, 0 * ones, 2, 1e-5, False)
    assert_near(y, F.group_norm(x.double(), 2), slack=20)


@on_devices
def test_one_kernel_refuses_groups_that_do_not_fit(device):
    make = Maker(device, torch.float32)
    x, ones = make.image(1, 2, 130, 130), torch.ones(2, device=device)
    assert group_norm_kernels.padded_group(130 * 130, 2) == 65536
    with pytest.raises(AssertionError, match="does not fit"):
        group_norm_kernels.launch_one_kernel(x, None, ones, ones, 1, 1e-5, False)


@on_devices
@pytest.mark.parametrize("cat", [False, True])
def test_two_kernels_merge_chunks_of_several_tiles(cat, device, monkeypatch):
    """The last chunk is incomplete. In both kernels, each program processes several tiles, the last one incomplete."""
    seen = []
    monkeypatch.setattr(group_norm_kernels, "_apply_kernel", _Recorder(group_norm_kernels._apply_kernel, seen))
    monkeypatch.setattr(group_norm_kernels, "MOMENTS_TILE", 1024)
    monkeypatch.setattr(group_norm_kernels, "APPLY_TILE", 1024)
    monkeypatch.setattr(group_norm_kernels, "FEW_CHUNKS", 2)
    monkeypatch.setattr(group_norm_kernels, "MANY_CHUNKS", 2)
    monkeypatch.setattr(group_norm_kernels, "multiprocessors", lambda _: 2)
    make = Maker(device, torch.float32)
    x, weight, bias = make.image(2, 72, 25, 13), make.rows(72), make.rows(72)
    a, b = (x[:, :50], x[:, 50:]) if cat else (x, None)
    a, b = (None if part is None else part.contiguous(memory_format=torch.channels_last) for part in (a, b))
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory with NaN
    try:
        y = group_norm_kernels.launch_two_kernels(a, b, weight, bias, 6, 1e-5, False)
    finally:
        torch.use_deterministic_algorithms(False)
    (args, options), hw = seen[0], 25 * 13
    rows_per_chunk, chunks, _, rows_per_program = args[12:16]
    assert (
        chunks > options["CHUNKS"] > 1
        and chunks % options["CHUNKS"]
        and hw % rows_per_chunk
        and rows_per_chunk > 1024 // 128
    )
    assert rows_per_program > options["ROWS"] and hw % rows_per_program % options["ROWS"]
    dx, dw, db = doubled(x, weight, bias)
    assert_near(y, F.group_norm(dx, 6, dw, db, 1e-5))


def test_all_picture_sizes_share_compiled_kernels(monkeypatch):
    """Triton compiles once per combination of constants and integer classes (1, multiple of 16, other)."""
    compiled: dict[str, set[Any]] = {}

    def kind(value: int) -> str:
        return "one" if value == 1 else "multiple" if value % 16 == 0 else "other"

    def record(kernel, _, *args, **options):
        free = kernel.do_not_specialize if hasattr(kernel, "do_not_specialize") else kernel.kwargs["do_not_specialize"]
        named = dict(zip(kernel.arg_names, args, strict=False))
        integers = {name: kind(value) for name, value in named.items() if isinstance(value, int) and name not in free}
        compiled.setdefault(kernel.fn.__name__, set()).add((*integers.items(), *sorted(options.items())))

    for name, value in {
        "launch_kernel": record,
        "runs_kernels": lambda _: True,
        "multiprocessors": lambda _: 132,
    }.items():
        monkeypatch.setattr(group_norm_kernels, name, value)
    ones = torch.ones(640, device="meta")
    for height, width in itertools.product(range(24, 136, 7), range(25, 136, 9)):
        x = to_channels_last(torch.empty(2, 640, height, width, device="meta", dtype=torch.float16))
        group_norm_kernels.launch_two_kernels(x, None, ones, ones, 32, 1e-5, True)
    assert {name: len(kinds) for name, kinds in compiled.items()} == {"_chunk_moments_kernel": 1, "_apply_kernel": 2}


@pytest.mark.parametrize("tuned", ["one_kernel", "two_kernels", "gone"])
@pytest.mark.parametrize("size", [8, 64, 256])
def test_the_op_never_picks_one_kernel_where_it_does_not_fit(tuned, size, monkeypatch):
    """A table from another version may contain that choice."""
    picked = []
    monkeypatch.setattr(group_norm_silu, "run_chosen", lambda *args: picked.append(args))
    x, ones = torch.empty(1, 64, size, size), torch.ones(64)
    group_norm_silu._run_kernels(x, None, ones, ones, 32, 1e-5, True)
    op, key, implementations, chain, args, _ = picked[0]
    choices = ImplementationChoices()
    choices.chosen[op, key] = tuned
    name = choices.pick(op, key, implementations, chain[0], args)
    allowed = ("one_kernel", "two_kernels") if size <= 64 else ("two_kernels",)
    assert chain == allowed
    assert name == (tuned if tuned in allowed else chain[0])


class _Recorder:
    """Records the arguments of a launch and passes it on."""

    def __init__(self, kernel, seen):
        self._kernel, self._seen = kernel, seen

    def __getitem__(self, grid):
        def launch(*args, **options):
            self._seen.append((args, options))
            return self._kernel[grid](*args, **options)

        return launch


@on_devices
def test_group_norm_refuses_another_layout(device):
    x, ones = torch.zeros(2, 8, 4, 4, device=device), torch.ones(8, device=device)
    with pytest.raises(AssertionError, match="channels_last"):
        group_norm_kernels.launch_one_kernel(x, None, ones, ones, 2, 1e-5, False)
