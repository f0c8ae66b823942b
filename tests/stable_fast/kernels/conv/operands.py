"""Operands for kernel tests of a convolution with its epilogue, and the result in float64."""

from __future__ import annotations

from modules.stable_fast.kernels.conv.conv2d_epilogue import conv2d_epilogue_reference
from tests.stable_fast.kernels.kernel_device import (
    doubled,
)

# batch, Cin, Cout, height, width, kernel, stride: 3x3, odd everything, first and last layer, downsampling, 1x1.
SHAPES = [
    (2, 32, 32, 8, 8, 3, 1), (1, 20, 24, 5, 7, 3, 1), (8, 4, 32, 4, 4, 3, 1), (2, 32, 4, 6, 6, 3, 1),
    (2, 32, 40, 9, 8, 3, 2), (3, 48, 16, 4, 5, 1, 1),
]  # fmt: skip


def operands(make, shape):
    batch, cin, cout, height, width, kernel, stride = shape
    x = make.image(batch, cin, height, width)
    weight = make.image(cout, cin, kernel, kernel, scale=(cin * kernel**2) ** -0.5)
    out = [(size + 2 * (kernel // 2) - kernel) // stride + 1 for size in (height, width)]
    vector = make.rows(batch, 2 * cout)[:, cout:]
    return x, weight, make.rows(cout), vector, make.image(batch, cout, *out), stride, kernel // 2


def expected(x, weight, bias, vector, residual, stride, padding, activation):
    return conv2d_epilogue_reference(*doubled(x, weight, bias, vector, residual), stride, padding, activation)
