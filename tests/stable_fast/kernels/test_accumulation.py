"""Where products may be summed in fp16, how exact that is, and which choices hold for it."""

from __future__ import annotations

import pytest
import torch

from modules.stable_fast.kernels.accumulation import (
    by_cublas,
    product_key,
    product_reference,
    summed_in_single,
    summing_in_half,
    sums_in_half,
)
from modules.stable_fast.kernels.choices import ImplementationChoices
from modules.stable_fast.kernels.conv import conv2d_epilogue
from modules.stable_fast.kernels.conv.implicit_matmul import Epilogue
from modules.stable_fast.kernels.linear import linear_epilogue
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.store.tuning import AGREEMENT, within

HALF, SINGLE = torch.ones(2, dtype=torch.float16), torch.ones(2)
NAMES = dict.fromkeys(("cublas", "cublaslt_1", "cublaslt_3", "tiles"), print)


def key(rows: int, *, half: bool) -> tuple[object, ...]:
    with summing_in_half(allowed=half):
        return (rows, 320, "none", product_key(HALF))


def test_only_products_of_fp16_inside_are_summed_in_fp16() -> None:
    assert not sums_in_half(HALF)
    with summing_in_half(allowed=True):
        assert sums_in_half(HALF) and not sums_in_half(SINGLE) and not sums_in_half(HALF.bfloat16())
        with summing_in_half(allowed=False):
            assert not sums_in_half(HALF)
        assert sums_in_half(HALF)
    assert not sums_in_half(HALF)


def test_keys_tell_how_a_product_is_summed() -> None:
    assert key(8, half=False) == (8, 320, "none", "float16")
    assert key(8, half=True) == (8, 320, "none", "float16 summed in float16")
    assert summed_in_single(key(8, half=True)) == key(8, half=False) == summed_in_single(key(8, half=False))


def test_cublas_is_told_and_then_as_it_was() -> None:
    settings = torch.backends.cuda.matmul
    assert not settings.allow_fp16_accumulation
    with summing_in_half(allowed=True):
        with pytest.raises(RuntimeError), by_cublas(HALF):
            assert settings.allow_fp16_accumulation
            raise RuntimeError
        assert not settings.allow_fp16_accumulation
        with by_cublas(SINGLE):
            assert not settings.allow_fp16_accumulation


@pytest.mark.parametrize(("depth", "most"), [(16, 4e-4), (64, 8e-4), (1280, 4e-3)])
def test_the_error_grows_with_the_depth_that_is_summed_in_fp16(depth: int, most: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(64, 1280).half(), (torch.randn(48, 1280) / 1280**0.5).half()
    exact = x.double() @ weight.double().T
    error = ((product_reference(x, weight, depth) - exact).norm() / exact.norm()).item()
    assert most / 4 < error < most


def test_choices_for_sums_in_fp32_hold_until_there_are_others() -> None:
    choices = ImplementationChoices()
    choices.chosen["linear", key(64, half=False)] = "tiles"
    choices.chosen["linear", key(128, half=False)] = "cublaslt_3"  # another algorithm, if it sums in fp16
    times = {"cublas": 2.0, "cublaslt_1": 1.5, "cublaslt_3": 1.0, "tiles": 3.0}
    choices.learn([("linear", key(128, half=False), times)])

    def picked(rows: int, *, half: bool) -> str:
        return choices.pick("linear", key(rows, half=half), NAMES, "cublas", ())

    assert [picked(64, half=half) for half in (False, True)] == ["tiles", "tiles"]
    assert [picked(128, half=half) for half in (False, True)] == ["cublaslt_3", "cublaslt_1"]
    assert picked(140, half=True) == "cublaslt_1"
    choices.chosen["linear", key(64, half=True)] = "cublas"
    assert [picked(64, half=half) for half in (False, True)] == ["tiles", "cublas"]


def test_a_tuner_is_asked_about_sums_in_fp16_too() -> None:
    choices, asked = ImplementationChoices(), []
    choices.chosen["linear", key(64, half=False)] = "tiles"
    choices.tuner = lambda op, which, *_: asked.append(which) or "cublas"
    assert choices.pick("linear", key(64, half=True), NAMES, "cublas", ()) == "cublas"
    assert asked == [key(64, half=True)]


@pytest.mark.gpu
@pytest.mark.parametrize("depth", [320, 11520])
@pytest.mark.parametrize("residual", [True, False])
def test_libraries_that_sum_in_fp16_stay_near(depth: int, *, residual: bool) -> None:
    """As the tuner would compare them: it passes over what is further off than AGREEMENT."""
    torch.manual_seed(0)
    x, weight = torch.randn(512, depth).half().cuda(), (torch.randn(640, depth) / depth**0.5).half().cuda()
    bias, added = torch.randn(640).half().cuda(), torch.randn(512, 640).half().cuda() if residual else None
    exact = x.double() @ weight.double().T + bias.double() + (0.0 if added is None else added.double())
    served = 0
    with summing_in_half(allowed=True):
        for name, run in linear_epilogue.CANDIDATES.libraries.items():
            try:
                y = run(x, weight, bias, added, "none")
            except Unsupported:
                assert name != "cublas"
                continue
            assert within(y.double(), exact, AGREEMENT), name
            served += 1
    assert served > 1


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in conv2d_epilogue._CUDNN_GRAPHS if name.endswith("_1")])
def test_a_graph_of_cudnn_that_sums_in_fp16_stays_near_if_there_is_one(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 640, 16, 16).half().cuda().contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(320, 640, 3, 3) / 76).half().cuda().contiguous(memory_format=torch.channels_last)
    with summing_in_half(allowed=True):
        try:
            y = conv2d_epilogue._CUDNN_GRAPHS[name](x, weight, Epilogue(), 1, 1)
        except Unsupported as reason:
            pytest.skip(str(reason)[:80])
    assert within(y.double(), torch.nn.functional.conv2d(x.double(), weight.double(), padding=1), AGREEMENT)
