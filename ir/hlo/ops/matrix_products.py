"""Products of stacks of matrices as XLA's CPU backend makes them: the normal form of dots and convolutions, computed by BLAS.

Narrow floats accumulate in f32 and are rounded once; integers are exact and wrap; pred is or-of-ands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.hlo.ops.conversion import converted
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Dims = tuple[int, ...]

_IN_ORDER_DEPTH, _IN_ORDER_PRODUCTS = 16, 4096
"""Terms of a sum, and multiplications in all, up to which a float product sums in order: BLAS fuses and reorders, which
shows where terms cancel."""

PIECE_ELEMENTS = 1 << 24
"""Elements of a narrow operand widened to f32, or of gathered convolution windows, at a time: bounds extra memory to 64 MiB."""


# Products of stacked matrices

def _limb_product(lhs: Array, rhs: Array) -> Array:
    """Integer product modulo 2^64 from 16-bit limbs, each partial product exact in f64 (k < 2^21)."""
    assert lhs.shape[-1] < 1 << 21
    left, right = lhs.astype(np.uint64), rhs.astype(np.uint64)
    limbs = [[((x >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(np.float64) for i in range(4)] for x in (left, right)]
    total = np.zeros((*np.broadcast_shapes(lhs.shape[:-2], rhs.shape[:-2]), lhs.shape[-2], rhs.shape[-1]), np.uint64)
    for i, left_limb in enumerate(limbs[0]):
        for j, right_limb in enumerate(limbs[1][:4 - i]):
            if left_limb.any() and right_limb.any():
                total += np.matmul(left_limb, right_limb).astype(np.uint64) << np.uint64(16 * (i + j))
    return np.asarray(total.view(np.int64))


def _largest(x: Array) -> int:
    return max(abs(int(x.max())), abs(int(x.min()))) if x.size else 0


def _integer_product(lhs: Array, rhs: Array, result: DType) -> Array:
    """Exact modulo 2^64, then wrapped to the result type: in f64 where no sum can leave its 53 bits, else by limbs."""
    bound = _largest(lhs) * _largest(rhs) * lhs.shape[-1]
    if bound < 1 << 53:
        exact = np.matmul(lhs.astype(np.float64), rhs.astype(np.float64)).astype(np.int64)
    else:
        exact = _limb_product(lhs.astype(np.int64, copy=False), rhs.astype(np.int64, copy=False))
    return converted(exact, result)


def _accumulator(lhs: DType, rhs: DType, result: DType) -> np.dtype[Any]:
    """f32 for floats up to 32 bits, f64 or complex where an operand or the result is."""
    wide = {dtypes.F64: np.float64, dtypes.C64: np.complex64, dtypes.C128: np.complex128}
    return np.result_type(np.float32, *(wide[row] for row in (lhs, rhs, result) if row in wide))


def _sum_in_order(left: Array, right: Array) -> Array:
    """The product as its definition says: every term rounded, added one after another."""
    total = np.zeros((*left.shape[:-1], right.shape[-1]), left.dtype)
    for k in range(left.shape[-1]):
        total = total + left[..., :, k, None] * right[..., None, k, :]
    return total


def _float_product(lhs: Array, rhs: Array, accumulator: np.dtype[Any]) -> Array:
    """[.., m, k] x [.., k, n], widened to the accumulator; a big narrow right side goes piece by piece along n."""
    left = lhs.astype(accumulator, copy=False)
    if left.shape[-1] <= _IN_ORDER_DEPTH and left.size * rhs.shape[-1] <= _IN_ORDER_PRODUCTS:
        return _sum_in_order(left, rhs.astype(accumulator, copy=False))
    if rhs.dtype == accumulator or rhs.size <= PIECE_ELEMENTS:
        return np.asarray(np.matmul(left, rhs.astype(accumulator, copy=False)))
    step = max(1, rhs.shape[-1] * PIECE_ELEMENTS // rhs.size)
    pieces = [np.matmul(left, rhs[..., n:n + step].astype(accumulator)) for n in range(0, rhs.shape[-1], step)]
    return np.concatenate(pieces, axis=-1)


def product_dtype(name: str, lhs: Shape, rhs: Shape) -> DType:
    """Element type when none is declared: the operands'; of mixed ones complex before float before integer, then the wider."""
    for shape in (lhs, rhs):
        if not shape.is_array:
            raise ShapeError(f"{name} takes arrays, not {shape}")
    return max((lhs.dtype, rhs.dtype), key=lambda row: (row.is_complex, row.is_float, row.is_integer, row.bits))


def product(lhs: Array, rhs: Array, result: DType) -> Array:
    """Stacked matrix product [.., m, k] x [.., k, n] -> [.., m, n] with HLO's arithmetic for the element types.

    Floats with an integer result are rounded to the operand type first and then truncated, as XLA CPU does.
    """
    left, right = dtypes.from_numpy(lhs.dtype), dtypes.from_numpy(rhs.dtype)
    if left is dtypes.PRED and result is dtypes.PRED:
        return np.asarray(np.matmul(lhs.astype(np.float32), rhs.astype(np.float32)) > 0)
    if not (left.is_float or left.is_complex or right.is_float or right.is_complex or result.is_float or result.is_complex):
        return _integer_product(lhs, rhs, result)
    summed = _float_product(lhs, rhs, _accumulator(left, right, result))
    if result.is_integer and left.is_float:
        summed = converted(summed, left)
    return converted(summed, result)
