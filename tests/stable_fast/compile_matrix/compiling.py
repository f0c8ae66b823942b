"""Compiles what our ops would launch on a card that is not here, and reads what the kernels need there."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from modules.stable_fast.kernels import devices
from modules.stable_fast.kernels.attention import attention_heads, attention_packed
from modules.stable_fast.kernels.candidates import Implementations
from modules.stable_fast.kernels.choices import CHOICES, ChoiceKey, Tuner
from modules.stable_fast.kernels.conv import conv2d_cat_epilogue, conv2d_epilogue, libraries, upsample_conv2d
from modules.stable_fast.kernels.eight_bits import (
    conv2d_eight,
    dequantize_channels,
    group_norm_silu_quantized,
    layer_norm_quantized,
    linear_eight,
    linear_geglu_eight,
    quantize_rows,
    quantize_tensor,
    upsample_conv2d_eight,
)
from modules.stable_fast.kernels.elementwise import gated, rms_norm_rotary, rotary_embedding
from modules.stable_fast.kernels.launch import LAUNCHER
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
from modules.stable_fast.kernels.refusals import REFUSALS
from modules.stable_fast.kernels.triton_import import AsyncCompileMode
from tests.stable_fast.compile_matrix.cards import CARDS, AbsentCard
from tests.stable_fast.compile_matrix.workload import OpCall

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "attention_packed_qkv": attention_packed._attention_packed_qkv,
    "attention_packed_kv": attention_packed._attention_packed_kv,
    "attention_heads": attention_heads._attention_heads,
    "conv2d_epilogue": conv2d_epilogue._conv2d_epilogue,
    "conv2d_cat_epilogue": conv2d_cat_epilogue._conv2d_cat_epilogue,
    "group_norm_silu": group_norm_silu._group_norm_silu,
    "group_norm_silu_cat": group_norm_silu._group_norm_silu_cat,
    "layer_norm": layer_norm._layer_norm,
    "add_layer_norm": layer_norm._add_layer_norm,
    "linear_cat": linear_cat._linear_cat,
    "quantize_rows": quantize_rows._quantize_rows,
    "quantize_channels": quantize_rows._quantize_channels,
    "dequantize_channels": dequantize_channels._dequantize_channels,
    "quantize_tensor": quantize_tensor._quantize_tensor,
    "layer_norm_quantized": layer_norm_quantized._layer_norm_quantized,
    "add_layer_norm_quantized": layer_norm_quantized._add_layer_norm_quantized,
    "group_norm_silu_quantized": group_norm_silu_quantized._group_norm_silu_quantized,
    "linear_eight": linear_eight._linear_eight,
    "linear_geglu_eight": linear_geglu_eight._linear_geglu_eight,
    "linear_geglu_eight_quantized": linear_geglu_eight._linear_geglu_eight_quantized,
    "conv2d_eight": conv2d_eight._conv2d_eight,
    "upsample_conv2d_eight": upsample_conv2d_eight._upsample_conv2d_eight,
    "linear_epilogue": linear_epilogue._linear_epilogue,
    "linear_geglu": linear_geglu._linear_geglu,
    "upsample_conv2d": upsample_conv2d._upsample_conv2d,
    "clamp_infinities": clamp_infinities._clamp_infinities,
    "clamped_rms_norm": clamped_rms_norm._clamped_rms_norm,
    "rms_norm": rms_norm._rms_norm,
    "add_rms_norm": rms_norm._add_rms_norm,
    "modulated_layer_norm": modulated_layer_norm._modulated_layer_norm,
    "gated_add": gated._gated_add,
    "gated_activation": gated._gated_activation,
    "rms_norm_rotary": rms_norm_rotary._rms_norm_rotary,
    "rotary_embedding": rotary_embedding._rotary_embedding,
}
PRODUCT = re.compile(r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)\S*")
HALF_SUMS = ".f16.f16.f16.f16"  # of an instruction whose operands and sums are all fp16


@dataclass(frozen=True)
class Compiled:
    """A kernel for a card: bytes of shared memory and of spilled registers, and how it multiplies matrices."""

    op: str
    implementation: str
    kernel: str
    shared: int = 0
    spilled: int = 0
    products: frozenset[str] = frozenset()
    has_dot: bool = False
    sums_in_half: bool = False
    error: str = ""

    @property
    def label(self) -> str:
        return f"{self.op} by {self.implementation}: {self.kernel}"


class _NoGpu:
    """What Triton asks of a driver before it compiles."""

    class utils:  # noqa: N801 - Triton's name
        @staticmethod
        def get_device_properties(device: int) -> dict[str, int]:
            return {"max_shared_mem": 1 << 30}

    def __init__(self, card: AbsentCard) -> None:
        self._card = card

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._card.target, 32)

    def get_current_device(self) -> int:
        return 1000 + list(CARDS).index(self._card.name)  # not the number of a card that is there

    def get_current_stream(self, device: int) -> int:
        return 0


class _Launches:
    """Compiles instead of launching, and notes for which op and implementation."""

    def __init__(self) -> None:
        self.op = self.implementation = ""
        # By identity, because Triton gives equal launches the same kernel.
        self.kernels: dict[int, tuple[str, str, str, Any]] = {}

    def __call__(self, kernel: Any, grid: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        compiled = kernel.run(*args, grid=grid, warmup=True, **options)
        self.kernels.setdefault(id(compiled), (self.op, self.implementation, kernel.fn.__name__, compiled))

    def by_all(
        self, op: str, key: ChoiceKey, implementations: Implementations, default: str, args: tuple[Any, ...]
    ) -> str:
        """Launches every candidate, in the tuner's place."""
        for self.implementation, implementation in implementations.items():
            with suppress(*REFUSALS):
                implementation(*args)
        self.implementation = "default"
        return default


def compiled_for(
    card: AbsentCard, calls: Iterable[OpCall], dtype: torch.dtype | None, *, all_candidates: bool = False
) -> list[Compiled]:
    """Compiles the default choices for these calls, or everything that the tuner would offer as well.

    All operands have this dtype; without one, they keep their own.
    """
    launches = _Launches()
    launches.implementation = "default"
    tuner = launches.by_all if all_candidates else None
    with ThreadPoolExecutor(2) as workers:
        with (
            _pretending(card, launches, tuner),
            AsyncCompileMode(workers, ignore_errors=True),
        ):
            for call in distinct(calls, dtype):
                launches.op = call.op
                IMPLEMENTATIONS[call.op](*call.args)
        return list(workers.map(lambda launch: facts(*launch), launches.kernels.values()))


def keys_on(card: AbsentCard, calls: Iterable[OpCall], dtype: torch.dtype) -> Counter[tuple[str, ChoiceKey]]:
    """The op and key of each choice that these calls make there, and how often."""
    made: Counter[tuple[str, ChoiceKey]] = Counter()

    def pick(op: str, key: ChoiceKey, offered: Implementations, default: str, args: tuple[Any, ...]) -> str:
        made[op, key] += 1
        return default

    with _pretending(card, lambda *_: None, None), patch.object(CHOICES, "pick", pick):
        for call in calls:
            IMPLEMENTATIONS[call.op](*(x.to(dtype) if isinstance(x, Tensor) else x for x in call.args))
    return made


def distinct(calls: Iterable[OpCall], dtype: torch.dtype | None) -> Iterator[OpCall]:
    """Each call once, in this dtype if there is one."""
    seen: set[Any] = set()
    for call in calls:
        key = (call.op, *((x.shape, x.stride()) if isinstance(x, Tensor) else x for x in call.args))
        if key not in seen:
            seen.add(key)
            yield OpCall(call.op, tuple(x.to(dtype) if dtype and isinstance(x, Tensor) else x for x in call.args))


@contextmanager
def _pretending(card: AbsentCard, launch: Callable[..., None], tuner: Tuner | None) -> Iterator[None]:
    """Makes tensors without data pass for tensors on this card, with no choices made before."""
    choices = {"chosen": {}, "measured": {}, "predicted": {}, "used": {}, "refused": set(), "tuner": tuner}
    token = LAUNCHER.set(launch)
    with (
        patch.object(devices, "card_of", lambda x: card.card),
        patch.object(driver, "_active", _NoGpu(card)),
        patch.multiple(CHOICES, **choices),
        patch.object(libraries, "bare_conv", _conv),
        patch.object(upsample_conv2d, "bare_conv", _conv),
    ):
        try:
            yield
        finally:
            LAUNCHER.reset(token)


def _conv(x: Tensor, weight: Tensor, stride: int, padding: int, *, benchmark: bool) -> Tensor:
    """Stands in for cuDNN's convolution, which tensors without data cannot reach."""
    return to_channels_last(F.conv2d(x, weight, None, stride, padding))


def facts(op: str, implementation: str, name: str, kernel: Any) -> Compiled:
    try:
        made = kernel.result() if hasattr(kernel, "result") else kernel
    except Exception as error:  # noqa: BLE001 - whatever a compiler raises is what this wants to tell
        return Compiled(op, implementation, name, error=f"{type(error).__name__}: {error}")
    return Compiled(
        op,
        implementation,
        name,
        shared=made.metadata.shared,
        spilled=_stack(made.asm["cubin"]),
        products=frozenset(PRODUCT.findall(made.asm["ptx"])),
        has_dot="tt.dot" in made.asm.get("ttir", ""),
        sums_in_half=HALF_SUMS in made.asm["ptx"],
    )


def _stack(cubin: bytes) -> int:
    """Bytes of a thread's registers that the assembler keeps in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = subprocess.check_output([knobs.nvidia.cuobjdump.path, "-res-usage", str(path)], text=True)
    return max(int(size) for size in re.findall(r"STACK:(\d+)", usage))
