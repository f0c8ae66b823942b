"""Runs every implementation of every op at small UNet-like shapes against its float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modules.stable_fast.doctor.case import Case, Maker
from modules.stable_fast.doctor.eight_bit_cases import eight_bit_cases
from modules.stable_fast.kernels.activations import ACTIVATIONS
from modules.stable_fast.kernels.attention import attention_heads, attention_packed
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, Implementations, Tuner
from modules.stable_fast.kernels.conv import conv2d_cat_epilogue, conv2d_epilogue, upsample_conv2d
from modules.stable_fast.kernels.elementwise import gated, rms_norm_rotary, rotary_embedding
from modules.stable_fast.kernels.launch import compile_ahead
from modules.stable_fast.kernels.linear import linear_cat, linear_epilogue, linear_geglu
from modules.stable_fast.kernels.memory_layout import to_channels_last
from modules.stable_fast.kernels.norm import (
    clamp_infinities,
    clamped_rms_norm,
    group_norm_silu,
    layer_norm,
    modulated_layer_norm,
    rms_norm,
)
from modules.stable_fast.kernels.refusals import Unsupported
from modules.stable_fast.kernels.triton_import import TritonError
from modules.stable_fast.store.tuning import launch_all

# Largest error allowed, relative to the largest value of the reference.
KERNEL_TOLERANCES = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-5}


@dataclass(frozen=True)
class OpCheck:
    """The error of one implementation against the float64 reference. `refused`: why it does not support the shape.

    `fault`: the GPU error that the implementation caused.
    """

    op: str
    shape: str
    implementation: str
    error: float
    tolerance: float
    refused: str = ""
    fault: str = ""

    @property
    def passed(self) -> bool:
        return not self.fault and (bool(self.refused) or self.error <= self.tolerance)


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """Every op, with and without each optional operand, at even and odd sizes."""
    make = Maker(device, dtype)
    yield from _norm_cases(make)
    yield from _transformer_cases(make)
    yield from _conv_cases(make)
    yield from _linear_cases(make)
    yield from _attention_cases(make)
    yield from eight_bit_cases(make)


def _norm_cases(make: Maker) -> Iterator[Case]:
    for batch, channels, size, groups in ((2, 320, 16, 32), (1, 60, 33, 4), (2, 1280, 8, 32), (3, 64, 48, 2)):
        weight, bias = make.rows(channels), make.rows(channels)
        x = make.image(batch, channels, size, size) + 3.0
        args = (x, weight, bias, groups, 1e-5, True)
        yield Case("group_norm_silu", group_norm_silu.group_norm_silu_reference, args)
        split = channels * 2 // 3
        parts = (to_channels_last(x[:, :split]), to_channels_last(x[:, split:]))
        args = (*parts, weight, bias, groups, 1e-6, False)
        yield Case("group_norm_silu_cat", group_norm_silu.group_norm_silu_cat_reference, args)
    for rows, channels in ((130, 320), (17, 1280), (64, 77)):
        norm = (make.rows(channels), make.rows(channels), 1e-5)
        x = make.rows(2, rows, channels) + 3.0
        yield Case("layer_norm", layer_norm.layer_norm_reference, (x, *norm))
        yield Case("add_layer_norm", layer_norm.add_layer_norm_reference, (x, make.rows(2, rows, channels), *norm))


def _transformer_cases(make: Maker) -> Iterator[Case]:
    for length, channels in ((130, 320), (17, 1280), (5, 77)):
        x, residual, weight = make.rows(2, length, channels), make.rows(2, length, channels), make.rows(channels)
        yield Case("rms_norm", rms_norm.rms_norm_reference, (x, weight, 1e-6))
        yield Case("rms_norm", rms_norm.rms_norm_reference, (x, None, 1e-6))
        yield Case("add_rms_norm", rms_norm.add_rms_norm_reference, (x, residual, weight, 1e-6))
        for infinite in (False, True):
            args = (_with_infinity(x) if infinite else x, weight, 1e-6, 2.0)
            yield Case("clamped_rms_norm", clamped_rms_norm.clamped_rms_norm_reference, args)
            yield Case("clamp_infinities", clamp_infinities.clamp_infinities_reference, (args[0], 2.0))
        scale, shift, gate = make.rows(2, 3 * channels).chunk(3, dim=1)
        reference = modulated_layer_norm.modulated_layer_norm_reference
        yield Case("modulated_layer_norm", reference, (x + 3.0, scale, shift, 1e-6))
        for most in (None, 1.0):
            yield Case("gated_add", gated.gated_add_reference, (x, gate, residual, most))
        first, second = make.rows(2, length, 2 * channels).chunk(2, dim=-1)
        for activation in ("silu", "gelu", "gelu_tanh"):
            yield Case("gated_activation", gated.gated_activation_reference, (first, second, activation))
    for heads, length, size in ((4, 130, 64), (3, 17, 40), (2, 5, 6)):
        x, cos, sin = make.rows(2, length, heads, size), make.rows(1, length, 1, size), make.rows(1, length, 1, size)
        reference = rotary_embedding.rotary_embedding_reference
        yield Case("rotary_embedding", reference, (x, cos, sin, True))
        weight, text, scale = make.rows(size), make.rows(2, length // 2, heads, size), make.rows(size)
        joint = rms_norm_rotary.rms_norm_rotary_reference
        yield Case("rms_norm_rotary", joint, (x, weight, None, None, 1e-6, cos, sin, True))
        args = (x[:, len(text[0]) :], weight, text, scale, 1e-6, cos, sin, False)
        yield Case("rms_norm_rotary", joint, args)
        swapped = (each.transpose(1, 2) for each in (x, cos, sin))
        yield Case("rotary_embedding", reference, (*swapped, False))


def _with_infinity(x: Tensor) -> Tensor:
    x = x.clone()
    x[-1, -1, -1] = float("inf")
    return x


def _conv_cases(make: Maker) -> Iterator[Case]:
    reference = conv2d_epilogue.conv2d_epilogue_reference
    for channels, out, size, kernel, stride in (
        (64, 128, 16, 3, 1), (4, 64, 24, 3, 1), (64, 4, 16, 3, 1), (320, 320, 8, 3, 1), (64, 64, 17, 3, 2),
        (96, 128, 12, 1, 1), (64, 64, 64, 3, 1), (136, 328, 20, 3, 1),
    ):  # fmt: skip
        x = make.image(2, channels, size, size)
        weight = make.image(out, channels, kernel, kernel, scale=(channels * kernel**2) ** -0.5)
        bias, padding = make.rows(out), kernel // 2
        done = (size + 2 * padding - kernel) // stride + 1
        residual = make.image(2, out, done, done)
        tail = (stride, padding)
        yield Case("conv2d_epilogue", reference, (x, weight, bias, None, None, *tail, "none"))
        vector = make.rows(1, 2 * out)[:, out:]
        yield Case("conv2d_epilogue", reference, (x, weight, bias, vector, None, *tail, "none"))
        yield Case("conv2d_epilogue", reference, (x, weight, bias, None, residual, *tail, "none"))
        full = (x, weight, bias, make.rows(2, out), residual, *tail, "silu")
        yield Case("conv2d_epilogue", reference, full)
    a, b = make.image(2, 128, 12, 12), make.image(2, 64, 12, 12)
    weight, bias = make.image(96, 192, 1, 1, scale=0.07), make.rows(96)
    for residual in (None, make.image(2, 96, 12, 12)):
        args = (a, b, weight, bias, residual)
        yield Case("conv2d_cat_epilogue", conv2d_cat_epilogue.conv2d_cat_epilogue_reference, args)
    for channels, size in ((64, 8), (40, 13)):
        x = make.image(2, channels, size, size)
        weight = upsample_conv2d.prepare_subpixel_weight(make.image(channels, channels, 3, 3, scale=0.05))
        args = (x, weight, make.rows(channels))
        yield Case("upsample_conv2d", upsample_conv2d.upsample_conv2d_reference, args)


def _linear_cases(make: Maker) -> Iterator[Case]:
    for rows, k, n in ((256, 320, 320), (77, 64, 200), (128, 1280, 320)):
        x, weight, bias = make.rows(2, rows, k), make.rows(n, k, scale=k**-0.5), make.rows(n)
        for residual in (None, make.rows(2, rows, n)):
            for activation in ACTIVATIONS:
                args = (x, weight, bias, residual, activation)
                yield Case("linear_epilogue", linear_epilogue.linear_epilogue_reference, args)
        yield Case("linear_epilogue", linear_epilogue.linear_epilogue_reference, (x, weight, None, None, "none"))
        parts = (x[..., : k // 4], x[..., k // 4 :])
        for optional in (None, bias):
            yield Case("linear_cat", linear_cat.linear_cat_reference, (*parts, weight, optional))
        yield Case("linear_geglu", linear_geglu.linear_geglu_reference, (x, weight, bias))


def _attention_cases(make: Maker) -> Iterator[Case]:
    for heads, size, rows in ((8, 40, 256), (2, 80, 100), (2, 160, 64), (5, 64, 144), (1, 512, 64)):
        width = heads * size
        packed = (make.rows(2, rows, 3 * width), heads, False)
        yield Case("attention_packed_qkv", attention_packed.attention_packed_qkv_reference, packed)
        cross = (make.rows(2, rows, width), make.rows(2, 77, 2 * width), heads, False)
        yield Case("attention_packed_kv", attention_packed.attention_packed_kv_reference, cross)
    for heads, size, rows, keys in ((4, 64, 144, 144), (2, 40, 64, 77), (2, 128, 33, 33)):
        q, k, v = (make.rows(2, length, heads, size).transpose(1, 2) for length in (rows, keys, keys))
        laid_out = attention_heads.attention_bias_reference(make.rows(1, rows, keys, heads).permute(0, 3, 1, 2))
        for bias, causal, scale in ((laid_out, False, 1.0), (None, rows == keys, None), (None, False, 0.3)):
            args = (q, k, v, bias, causal, scale)
            yield Case("attention_heads", attention_heads.attention_heads_reference, args)
        yield Case("attention_bias", attention_heads.attention_bias_reference, (laid_out,))


def _error(result: Any, expected: Any) -> float:
    """Largest difference relative to the largest expected value; infinite if the result is not finite."""
    if isinstance(expected, tuple):
        return max(_error(r, e) for r, e in zip(result, expected, strict=True))
    result, expected = result.double(), expected.double()
    error = float((result - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    return error if error == error else float("inf")


def _shape(case: Case) -> str:
    return " ".join("x".join(map(str, arg.shape)) for arg in case.args if isinstance(arg, Tensor))


def check(case: Case) -> list[OpCheck]:
    """Checks every implementation of this call until one makes the GPU fault. On a CPU, checks only the op."""
    x = case.args[0]
    expected = case.reference(*(arg.double() if isinstance(arg, Tensor) else arg for arg in case.args))
    tolerance = KERNEL_TOLERANCES[x.dtype] if case.tolerance is None else case.tolerance
    checks: list[OpCheck] = []

    def note(implementation: str, run: Callable[[], Any]) -> None:
        error, refused, fault = 0.0, "", ""
        try:
            error = _error(run(), expected)
        except (Unsupported, TritonError) as reason:
            refused = str(reason).splitlines()[0]
        except torch.AcceleratorError as reason:
            if any(done.fault for done in checks):  # the faulty implementation has been recorded already
                raise
            fault = str(reason).splitlines()[0]
        checks.append(OpCheck(case.op, _shape(case), implementation, error, tolerance, refused, fault))
        if fault:
            raise torch.AcceleratorError(fault)

    def every(op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]) -> str:
        for name, implementation in implementations.items():
            note(name, lambda implementation=implementation: implementation(*args))
        return default

    with suppress(torch.AcceleratorError):  # recorded already
        note("chosen", lambda: _call(case, every))
    return checks


def _call(case: Case, tuner: Tuner) -> Any:
    """Runs the op without known choices, so that `tuner` gets its implementations."""
    before = CHOICES.chosen, CHOICES.tuner
    CHOICES.chosen, CHOICES.tuner = {}, tuner
    try:
        return getattr(torch.ops.lightdiffusion, case.op)(*case.args)
    finally:
        CHOICES.chosen, CHOICES.tuner = before


def check_all(device: torch.device, dtype: torch.dtype) -> list[OpCheck]:
    """All checks. They end at a GPU fault, since nothing runs on the GPU afterwards."""
    checks: list[OpCheck] = []
    with torch.inference_mode():
        made = list(cases(device, dtype))
        compile_ahead(lambda: [_call(case, launch_all) for case in made], device)
        for case in made:
            checks += check(case)
            if checks[-1].fault:
                break
    return checks
