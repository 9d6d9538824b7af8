"""Conversions between the element types and f32, as the machine makes them.

To f32: every value exactly, 32-bit integers to the nearest even. From f32: nearest even; narrower floats overflow to infinity;
integers saturate and NaN becomes 0. Source: hardware model section 4 (float to integer is an assumption stated there).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from nxcc.backends.simulator.memory import Array, invalid, storage
from nxcc.ir.dtypes import F16, F32, PRED, DType, Kind

F32_TYPE = np.dtype(np.float32)
F64_TYPE = np.dtype(np.float64)

Widen = Callable[[Array], Array]
Narrow = Callable[[Array, Array], Any]


class Scratch:
    """Work arrays shared by all kernels of a machine: a kernel's own use of a slot ends when it returns.

    Sizes are rounded up to powers of two, so that few buffers exist however many shapes ask.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, int], Array] = {}

    def array(self, slot: str, shape: tuple[int, ...], dtype: Any = F32_TYPE) -> Array:
        """An uninitialised contiguous array; those of different slots do not overlap."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        key = slot, max(size - 1, 1).bit_length()
        if key not in self._buffers:
            self._buffers[key] = np.empty(1 << key[1], np.uint8)
        array: Array = self._buffers[key][:size].view(dtype).reshape(shape)
        return array


@cache
def _table(dtype: DType) -> Array:
    """All values of a dtype of up to 16 bits in f32, by bit pattern: faster than numpy's conversion of f16 and fp8."""
    patterns = np.arange(1 << dtype.bits).astype(f"u{dtype.byte_size}")
    return patterns.view(dtype.numpy).astype(np.float32)


def check_arithmetic(dtype: DType) -> None:
    """Raise PROGRAM_INVALID for a dtype that no engine computes with."""
    if dtype.kind not in (Kind.FLOAT, Kind.SIGNED, Kind.UNSIGNED, Kind.BOOL) or dtype.bits not in (8, 16, 32):
        raise invalid(f"no engine computes with {dtype}")


def widen(dtype: DType, shape: tuple[int, ...], scratch: Scratch, slot: str) -> Widen | None:
    """A function that yields its argument's values in f32 (in scratch slot `slot`); None if they are f32 already."""
    check_arithmetic(dtype)
    if dtype is F32:
        return None
    work = scratch.array(slot, shape)
    if dtype is F16 or (dtype.is_float and dtype.bits == 8):
        table, bits = _table(dtype), np.dtype(f"u{dtype.byte_size}")

        def look_up(x: Array) -> Array:
            return np.take(table, x.view(bits), out=work, mode="clip")
        return look_up

    def convert(x: Array) -> Array:
        np.copyto(work, x, casting="unsafe")
        return work
    return convert


def narrow(dtype: DType, shape: tuple[int, ...], scratch: Scratch) -> Narrow:
    """A function (f32 values, destination) that stores the values in `dtype`; it may use the scratch slot "narrow"."""
    check_arithmetic(dtype)
    if dtype.is_float:
        return lambda x, out: np.copyto(out, x, casting="unsafe")
    # The bounds of 32-bit integers are no f32 values.
    work = scratch.array("narrow", shape, F32_TYPE if dtype.bits < 32 else F64_TYPE)
    limits = np.iinfo(storage(dtype))

    def saturate(x: Array, out: Array) -> None:
        np.rint(x, work, casting="same_kind")
        np.maximum(work, limits.min, out=work)
        np.minimum(work, limits.max, out=work)
        not_a_number = np.isnan(work)
        if not_a_number.any():
            work[not_a_number] = 0
        np.copyto(out, work, casting="unsafe")
    return saturate


def immediate(value: float) -> Array:
    """An f32 immediate as an array, which ufuncs take faster than a Python number."""
    with np.errstate(over="ignore"):
        return np.array(value, np.float32)


def constant(value: float, dtype: DType) -> Array:
    """A value converted to a dtype as memset does: through f32, but integers up to 2^53 in magnitude are exact; saturates."""
    if not dtype.is_float and value == int(value if np.isfinite(value) else 0):
        limits = np.iinfo(storage(dtype))
        return np.array(min(max(int(value), limits.min), limits.max), storage(dtype))
    out = np.empty((), storage(dtype))
    with np.errstate(all="ignore"):
        narrow(dtype, (), Scratch())(np.array(value, np.float32), out)
    return out


def is_boolean_storage(dtype: DType) -> bool:
    """One-byte integers, whose 0 and 1 numpy can write as bool."""
    return dtype is PRED or (dtype.is_integer and dtype.bits == 8)
