"""Images scaled and shifted with a kernel that is as wide as the change of scale, as antialiased resizing does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nxcc.ir.dtypes import F32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.image import resample
from nxcc.ir.graphdef.values import Value
from nxcc.ir.literals import Array

_SMALLEST_SUM = 1000 * float(np.finfo(np.float32).tiny)
"""Weights whose sum is below are not rescaled. Source: TensorFlow's kernel (scale_and_translate_op.cc), as are the kernels."""

Kernel = Callable[[Array], Array]


def _lanczos(radius: float) -> Kernel:
    return lambda x: np.where(x > radius, 0, np.sinc(x) * np.sinc(x / radius))


def _gaussian(x: Array) -> Array:
    return np.where(x >= 1.5, 0, np.exp(-2 * x * x))


def _keys(x: Array) -> Array:
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x >= 2, 0, np.where(x >= 1, far, (1.5 * x - 2.5) * x * x + 1))


def _mitchell(x: Array) -> Array:
    far = ((-7 / 18 * x + 2) * x - 10 / 3) * x + 16 / 9
    return np.where(x >= 2, 0, np.where(x >= 1, far, (7 / 6 * x - 2) * x * x + 8 / 9))


KERNELS: dict[str, tuple[float, Kernel]] = {
    "lanczos1": (1, _lanczos(1)), "lanczos3": (3, _lanczos(3)), "lanczos5": (5, _lanczos(5)), "gaussian": (1.5, _gaussian),
    "box": (0.5, lambda x: np.where(x < 0.5, 1.0, np.where(x == 0.5, 0.5, 0.0))),
    "triangle": (1, lambda x: np.maximum(1 - x, 0)), "keyscubic": (2, _keys), "mitchellcubic": (2, _mitchell),
}
"""Radius, and weight by distance, of the kernels by TensorFlow's names."""


def _weights(kernel: str, source: int, target: int, scale: float, shift: float, antialias: bool) -> Array:
    """[target, source]: how much each input counts for each output; rows that look outside the image are zero."""
    radius, weigh = KERNELS[kernel]
    back = np.float32(1) / np.float32(scale)
    width = max(float(back), 1.0) if antialias else 1.0
    centres = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * back - back * np.float32(shift)
    first = np.clip(np.ceil(centres - np.float32(radius * width) - np.float32(0.5)), 0, source - 1)
    last = np.clip(np.floor(centres + np.float32(radius * width) - np.float32(0.5)), 0, source - 1)
    places = np.arange(source)
    distance = np.abs(places + 0.5 - centres[:, None].astype(np.float64)) / width
    inside = (places >= first[:, None]) & (places <= last[:, None]) & ((centres >= 0) & (centres <= source))[:, None]
    found = np.where(inside, weigh(distance), 0)
    total = found.sum(axis=1, keepdims=True)
    return found / np.where(np.abs(total) >= _SMALLEST_SUM, total, 1)


@rule("ScaleAndTranslate", needs=("dot",), ranks=(4, 1, 1, 1))
def scale_and_translate(call: Call) -> Value:
    e = call.emit
    x = e.convert(call.x(0), F32)
    sizes, scales, shifts = call.ints(1), call.constant(2), call.constant(3)
    kernel = call.text("kernel_type", *KERNELS)
    call.need(len(sizes) == scales.size == shifts.size == 2 and min(sizes) > 0 and 0 not in x.shape.dims[1:3],
              f"{x.shape} cannot be resized to {sizes}")
    for axis in (1, 2):
        scale, shift = float(scales[axis - 1]), float(shifts[axis - 1])
        call.need(scale > 0 and math.isfinite(scale) and math.isfinite(shift), f"scale {scale}, translation {shift}")
        call.table(8 * sizes[axis - 1] * x.shape.dims[axis])  # with what the weights are made of
        x = resample(e, x, axis, _weights(kernel, x.shape.dims[axis], sizes[axis - 1], scale, shift, call.attr("antialias")))
    return x
