"""Functions of elements that numpy does not have, or has with other special cases.

Source of the special cases: HLO semantics notes, sections 1 to 3, measured on XLA CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType, Kind

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
Rows = dict[Kind, Function]


def _working(row: DType) -> np.dtype[Any]:
    """The numpy type that elements are computed in: f32 for narrower floats, one byte for sub-byte integers."""
    if row.is_float and row.bits < 32:
        return np.dtype(np.float32)
    if row.is_integer and row.bits < 8:
        return np.dtype(np.int8 if row.is_signed else np.uint8)
    return row.numpy


WORKING = {row.numpy: _working(row) for row in dtypes.DTYPES if row.is_array}
WITHOUT_NAN = frozenset((dtypes.F4E2M1FN, dtypes.F6E2M3FN, dtypes.F6E3M2FN))
"""Floats that have no NaN: it becomes -0, whatever its sign, as XLA CPU has it (measured)."""


def stored(x: Array, dtype: DType) -> Array:
    """Computed values in the element type of a result."""
    if dtype in WITHOUT_NAN:
        x = np.where(np.isnan(x), x.dtype.type(-0.0), x)
    return np.asarray(x.astype(dtype.numpy, copy=False))


UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def sign(x: Array) -> Any:
    return np.where((x == 0) | np.isnan(x), x, np.copysign(x.dtype.type(1), x))


def round_half_away(x: Array) -> Any:
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(x.dtype.type(1), x), whole)


def erf(x: Array) -> Any:
    """The error function of an f64 array."""
    from scipy import special  # type: ignore[import-untyped]
    return special.erf(x)


def logistic(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


def complex_expm1(z: Array) -> Any:
    """exp(a+bi)-1 without cancellation: expm1(a)cos(b) - 2 sin(b/2)^2, and exp(a)sin(b)."""
    half = np.sin(z.imag / 2)
    return complex_number(np.expm1(z.real) * np.cos(z.imag) - 2 * half * half, np.exp(z.real) * np.sin(z.imag))


def complex_log1p(z: Array) -> Any:
    """log(1+z) without cancellation: the modulus from log1p where z is small."""
    a, b = z.real, z.imag
    small = np.hypot(a, b) < 0.5
    modulus = np.where(small, 0.5 * np.log1p(a * (2 + a) + b * b), np.log(np.hypot(1 + a, b)))
    return complex_number(modulus, np.arctan2(b, 1 + a))


def complex_power(z: Array, w: Array) -> Any:
    """z^w; 0^0 = 1, 0^w = 0 for a positive real part of w."""
    result = np.exp(w * np.log(z))
    at_zero = np.where(w == 0, 1, np.where(w.real > 0, 0, np.nan))
    return np.where(z == 0, at_zero, np.where(w == 0, 1, result))


def complex_atan2(y: Array, x: Array) -> Any:
    return -1j * np.log((x + 1j * y) / np.sqrt(x * x + y * y))


def complex_divide(a: Array, b: Array) -> Any:
    """a/b; a zero divisor gives infinities component by component, as (1+1i)/0 = inf+inf i."""
    by_zero = complex_number(a.real / np.abs(b.real), a.imag / np.abs(b.real))
    return np.where(b == 0, by_zero, a / np.where(b == 0, 1, b))


def complex_number(real: Array, imag: Array) -> Array:
    result = np.empty(np.broadcast_shapes(np.shape(real), np.shape(imag)), np.result_type(real, imag, np.complex64))
    result.real = real
    result.imag = imag
    return result


def integer_divide(a: Array, b: Array) -> Any:
    """Truncates toward zero; x/0 has all bits set; INT_MIN/-1 wraps."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, ~np.zeros_like(b), (a - np.fmod(a, divisor)) // divisor)


def integer_remainder(a: Array, b: Array) -> Any:
    """Sign of the dividend; x%0 = x."""
    return np.where(b == 0, a, np.fmod(a, np.where(b == 0, b.dtype.type(1), b)))


def signed_power(base: Array, exponent: Array) -> Any:
    """Wraps; a negative exponent is exact for a base of 1 or -1 and gives 0 otherwise."""
    one, zero = base.dtype.type(1), base.dtype.type(0)
    odd = (exponent & one) != 0
    reciprocal = np.where(base == 1, one, np.where(base == -1, np.where(odd, -one, one), zero))
    return np.where(exponent < 0, reciprocal, np.power(base, np.where(exponent < 0, zero, exponent)))


def _bits_of(width: int, x: Array) -> Array:
    """The elements' bit patterns as unsigned numbers; upper bits zero for sub-byte types."""
    pattern = x.view(UNSIGNED[x.dtype.itemsize])
    return pattern if width >= 8 else pattern & np.uint8((1 << width) - 1)


def signed_bits_of(width: int, x: Array) -> Array:
    """The elements' bit patterns as two's complement numbers."""
    pattern = x.view(SIGNED[x.dtype.itemsize])
    return pattern if width >= 8 else (pattern << (8 - width)) >> (8 - width)


def shift_left(width: int, x: Array, amount: Array) -> Any:
    places = _bits_of(width, amount)
    fits = places < width
    return np.where(fits, x << np.where(fits, places, 0).astype(x.dtype), x.dtype.type(0))


def shift_right_logical(width: int, x: Array, amount: Array) -> Any:
    pattern, places = _bits_of(width, x), _bits_of(width, amount)
    fits = places < width
    shifted = np.where(fits, pattern >> np.where(fits, places, 0).astype(pattern.dtype), pattern.dtype.type(0))
    return shifted.view(x.dtype)


def shift_right_arithmetic(width: int, x: Array, amount: Array) -> Any:
    pattern = signed_bits_of(width, x)
    places = np.minimum(_bits_of(width, amount), width - 1).astype(pattern.dtype)
    return (np.asarray(pattern >> places)).view(x.dtype)


def leading_zeros(width: int, x: Array) -> Any:
    rest = _bits_of(width, x).astype(np.uint64)
    length = np.zeros(rest.shape, np.uint64)
    for step in (32, 16, 8, 4, 2, 1):
        high = rest >> np.uint64(step)
        length = np.where(high != 0, length + np.uint64(step), length)
        rest = np.where(high != 0, high, rest)
    return np.uint64(width) - (length + rest)


def population(width: int, x: Array) -> Any:
    return np.bitwise_count(_bits_of(width, x))


def _high_product_64(a: Array, b: Array) -> Any:
    """Upper 64 bits of unsigned 64-bit products, from 32-bit halves."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_low, a_high, b_low, b_high = a & low, a >> half, b & low, b >> half
    middle = a_high * b_low + ((a_low * b_low) >> half)
    other = a_low * b_high + (middle & low)
    return a_high * b_high + (middle >> half) + (other >> half)


def unsigned_high_product(width: int, a: Array, b: Array) -> Any:
    if width == 64:
        return _high_product_64(a, b)
    return (a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(width)


def signed_high_product(width: int, a: Array, b: Array) -> Any:
    if width < 64:
        return (a.astype(np.int64) * b.astype(np.int64)) >> np.int64(width)
    high = _high_product_64(a.view(np.uint64), b.view(np.uint64))
    zero = np.int64(0)
    return np.asarray(high).view(np.int64) - np.where(a < 0, b, zero) - np.where(b < 0, a, zero)
